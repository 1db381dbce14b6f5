"""Cancelled requests (running, waiting or not yet received), and clients that disconnect."""

import threading
import time

import pytest

from stepwise.batching.active_requests import REMEMBER_SECONDS
from stepwise.batching.disconnects import ASK_SECONDS, Disconnects
from stepwise.description.errors import Cancelled


def test_a_cancelled_request_leaves_before_the_next_step(bench):
    stays, goes = bench.submit(steps=4, name="a"), bench.submit(steps=4, name="b")
    bench.batcher.step()
    bench.batcher.cancel("b")
    bench.run()
    assert bench.rows == [4, 2, 2, 2]
    assert stays.events[-1].kind == "result"
    assert isinstance(goes.errors[0], Cancelled)
    assert goes.summary.outcome == "CANCELLED"


def test_a_waiting_request_that_is_cancelled_never_starts(bench):
    bench.submit(steps=3, cap=2)
    waits = bench.submit(steps=3, cap=2, name="waits")
    bench.batcher.step()
    bench.batcher.cancel("waits")
    bench.run()
    assert bench.rows == [2, 2, 2]
    assert isinstance(waits.errors[0], Cancelled)


def test_a_cancellation_may_arrive_before_its_request(bench):
    bench.batcher.cancel("early")
    with pytest.raises(Cancelled):
        bench.submit(name="early")
    # An early cancellation applies to one request only.
    bench.submit(name="early")


def test_an_early_cancellation_expires(bench):
    bench.batcher.cancel("late")
    bench.now = REMEMBER_SECONDS + 1
    bench.batcher.cancel("another")
    assert bench.submit(name="late").summary is None


def test_disconnected_clients_are_found_round_robin(bench):
    gone = set()
    running = [bench.submit(steps=9, disconnected=lambda n=n: n in gone) for n in range(3)]
    disconnects = Disconnects(bench.batcher)
    gone.update({0, 2})
    for _ in range(3):
        disconnects.ask()
    bench.batcher.step()
    assert [bool(answers.errors) for answers in running] == [True, False, True]
    assert isinstance(running[0].errors[0], Cancelled)
    bench.run()
    disconnects.ask()


def test_disconnecting_is_noticed_while_steps_run(bench):
    gone = threading.Event()
    answers = bench.submit(steps=9, disconnected=gone.is_set)
    disconnects = Disconnects(bench.batcher)
    disconnects.start()
    gone.set()
    until = time.monotonic() + 10
    while not answers.errors and time.monotonic() < until:
        time.sleep(ASK_SECONDS)
        bench.batcher.step()
        bench.submit(steps=1)
    disconnects.close()
    assert isinstance(answers.errors[0], Cancelled)
