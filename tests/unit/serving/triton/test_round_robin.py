"""Turns of peers, clients and requests."""

import threading

import pytest

from stepwise.triton.round_robin import RoundRobin, _Line


def job(told, name, pieces, begin=None):
    for piece in range(pieces):
        if begin is not None:
            begin.wait(10)
        told.append((name, piece))
        yield


def run(*jobs):
    """Run the jobs and return their pieces in order; all jobs are queued before the first ends."""
    told, begin = [], threading.Event()
    worker = RoundRobin("test")
    for owner, name, pieces in jobs:
        worker.submit(owner.split("/"), job(told, name, pieces, begin))
    begin.set()
    worker.close()
    return told


def test_an_owners_jobs_keep_their_order():
    told = run(("a", "first", 3), ("a", "second", 1), ("a", "third", 2))
    assert [name for name, _ in told] == ["first"] * 3 + ["second"] + ["third"] * 2


def test_a_long_job_delays_others_by_at_most_one_piece():
    told = run(("a", "video", 37), ("b", "picture", 1), ("c", "picture", 1))
    assert told.index(("picture", 0)) <= 2
    assert [piece for name, piece in told if name == "video"] == list(range(37))


@pytest.mark.parametrize("requests", [1, 7, 64])
def test_clients_take_turns_and_not_their_requests(requests):
    """Whatever the number of requests, and of invented names, of another peer or client."""
    many = [(f"peer/large/{index}", "large", 1) for index in range(requests)]
    told = run(*many, ("peer/small/a", "small", 1), ("peer/small/b", "small", 1))
    assert [name for name, _ in told[:5]].count("small") == 2
    named = [(f"peer/name {index}/{index}", "large", 1) for index in range(requests)]
    told = run(*named, ("other/small/a", "small", 1), ("other/small/b", "small", 1))
    assert [name for name, _ in told[:5]].count("small") == 2
    assert len(told) == requests + 2


def test_a_line_keeps_nothing_of_owners_without_jobs():
    line = _Line()
    for turn in range(100):
        line.append(("peer", str(turn), "request"), job([], "", 0))
        owner, _ = line.rotate()
        line.pop(owner)
        assert not line


def test_a_job_that_raises_ends_only_itself(caplog):
    def failing():
        yield
        raise OSError("no space left")

    told, jobs = [], RoundRobin("test")
    jobs.submit(("a",), failing())
    jobs.submit(("a",), job(told, "after", 1))
    jobs.submit(("b",), job(told, "other", 3))
    jobs.close()
    assert sorted(name for name, _ in told) == ["after"] + ["other"] * 3
    assert "no space left" in caplog.text


def test_close_finishes_queued_jobs():
    assert len(run(("a", "video", 5), ("b", "video", 5))) == 10
