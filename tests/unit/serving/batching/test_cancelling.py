"""Cancelled requests: running, waiting or not yet received."""

import pytest

from stepwise.batching.active_requests import REMEMBER_SECONDS
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


def test_a_stop_ends_an_active_request_and_no_later_one(bench):
    goes = bench.submit(steps=4, name="a")
    bench.batcher.step()
    bench.batcher.stop("a")
    bench.batcher.stop("b")
    bench.run()
    assert isinstance(goes.errors[0], Cancelled)
    assert bench.submit(name="b").summary is None
