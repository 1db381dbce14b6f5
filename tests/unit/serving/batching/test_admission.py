"""Requests that wait for the text encoders: their order, number and deadlines."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from stepwise.batching.admission import Admission
from stepwise.batching.door import Door
from stepwise.batching.queue import AGEING_SECONDS
from stepwise.description.errors import Cancelled, Expired, Unavailable
from tests.support.batching import request

SECONDS = 10


def settings(**fields):
    return request(**fields)[0].settings


def submit(admission, job, occupied=0, now=0.0, **fields):
    admission.submit(job, settings(**fields), occupied, now)


def take_all(admission, now=0.0):
    """Encode all requests, one after another; returns their order."""
    order = []
    while (job := admission.take(now)) is not None:
        order.append(job)
        admission.finish(job)
    return order


def test_no_more_requests_are_encoded_at_once_than_allowed():
    admission = Admission(capacity=64, at_once=2)
    for job in "abc":
        submit(admission, job)
    assert [admission.take(0.0) for _ in range(3)] == ["a", "b", None]
    admission.finish("a")
    assert admission.take(0.0) == "c"


@pytest.mark.parametrize("occupied", [0, 3, 7])
def test_pictures_in_the_denoiser_take_room(occupied):
    admission = Admission(capacity=8, at_once=1)
    room = 8 - occupied
    for job in range(room):
        submit(admission, job, occupied)
    admission.take(0.0)
    says = "the queue is full: 8 pictures run or wait, 1 more were requested and 8 are allowed"
    with pytest.raises(Unavailable, match=says):
        submit(admission, "more", occupied)
    admission.finish(0)
    submit(admission, "later", occupied)
    with pytest.raises(Unavailable, match="2 more were requested"):
        submit(Admission(capacity=8, at_once=1), "two", 7, num_images=2)


def test_clients_are_encoded_in_turn():
    admission = Admission(capacity=64, at_once=1)
    for number in range(6):
        submit(admission, f"greedy {number}", client="greedy")
    submit(admission, "modest 0", client="modest")
    order = take_all(admission)
    assert order.index("modest 0") <= 1


def test_peers_are_encoded_in_turn_whatever_names_their_clients_have():
    admission = Admission(capacity=64, at_once=1)
    for number in range(20):
        submit(admission, number, client=f"name {number}", peer="10.0.0.1")
    for number in range(100, 103):
        submit(admission, number, peer="10.0.0.2")
    order = take_all(admission)
    print(order)
    assert [order.index(100 + n) <= 2 * n + 1 for n in range(3)] == [True] * 3


def test_priority_decides_first_and_rises_with_waiting():
    admission = Admission(capacity=64, at_once=1)
    submit(admission, "low", priority=2)
    submit(admission, "high", now=1.0, priority=0)
    assert admission.take(1.0) == "high"
    submit(admission, "also high", now=2 * AGEING_SECONDS, priority=0)
    admission.finish("high")
    assert admission.take(2 * AGEING_SECONDS + 1) == "low"


def test_a_late_request_ends_where_it_waits():
    admission = Admission(capacity=64, at_once=1)
    with pytest.raises(Expired):
        submit(admission, "late on arrival", now=2.0, deadline=2.0)
    submit(admission, "a", deadline=5.0)
    submit(admission, "b", deadline=3.0)
    assert admission.deadline == 3.0
    assert admission.expired(2.9) == []
    ((job, error),) = admission.expired(3.0)
    assert job == "b"
    assert isinstance(error, Expired)
    assert take_all(admission, 3.0) == ["a"]


class Jobs:
    """A door; its jobs are encoded when the test allows."""

    def __init__(self, capacity=64, at_once=2):
        self.allowed = threading.Event()
        self.done, self.refused, self.problems = [], [], {}
        self.workers = ThreadPoolExecutor(at_once)
        admission = Admission(capacity, at_once)
        self.door = Door(
            admission, self.workers, lambda: 0, self.run, self.problems.get, self.refuse
        )

    def run(self, job):
        assert self.allowed.wait(SECONDS)
        if job == "broken":
            raise OSError("no space left")
        self.done.append(job)

    def refuse(self, job, error):
        self.refused.append((job, type(error)))


def test_a_deadline_ends_a_request_while_all_workers_are_busy():
    jobs = Jobs(at_once=1)
    now = time.monotonic()
    jobs.door.submit("busy", settings(arrived=now))
    jobs.door.submit("late", settings(arrived=now, deadline=now + 0.05))
    jobs.door.submit("patient", settings(arrived=now))
    until = time.monotonic() + SECONDS
    while not jobs.refused and time.monotonic() < until:
        time.sleep(0.01)
    assert jobs.refused == [("late", Expired)]
    jobs.allowed.set()
    jobs.door.close()
    jobs.workers.shutdown()
    assert sorted(jobs.done) == ["busy", "patient"]


def test_a_closing_door_finishes_its_requests_and_accepts_no_more():
    jobs = Jobs()
    for number in range(9):
        jobs.door.submit(number, settings())
    closing = threading.Thread(target=jobs.door.close)
    closing.start()
    while not jobs.door._closing:
        time.sleep(0.001)
    with pytest.raises(Unavailable, match="the server is stopping"):
        jobs.door.submit("more", settings())
    jobs.allowed.set()
    closing.join(SECONDS)
    jobs.workers.shutdown()
    assert sorted(jobs.done) == list(range(9))


def test_a_waiting_request_that_nobody_wants_is_refused():
    jobs = Jobs(at_once=1)
    for job in ("busy", "left", "patient"):
        jobs.door.submit(job, settings())
    jobs.problems |= {"busy": Cancelled("too late"), "left": Cancelled("the client has left")}
    until = time.monotonic() + SECONDS
    while not jobs.refused and time.monotonic() < until:
        time.sleep(0.01)
    assert jobs.refused == [("left", Cancelled)]
    jobs.allowed.set()
    jobs.door.close()
    jobs.workers.shutdown()
    assert sorted(jobs.done) == ["busy", "patient"]


def test_a_request_that_breaks_its_worker_frees_its_place(caplog):
    jobs = Jobs(at_once=1)
    for job in ("broken", "next"):
        jobs.door.submit(job, settings())
    jobs.allowed.set()
    jobs.door.close()
    jobs.workers.shutdown()
    assert jobs.done == ["next"]
    assert "no space left" in caplog.text
