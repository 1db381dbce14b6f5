"""The time by which a call must return, and the calls that are past it."""

import random
from contextlib import ExitStack

import pytest

from stepwise.request.call_limit import FACTOR, FIRST_SECONDS, LEAST_SECONDS, CallLimit
from stepwise.request.shared_state import overdue


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def limit(tmp_path, clock):
    return CallLimit(tmp_path, "sd3", clock)


def late(tmp_path, now):
    return overdue(tmp_path, ["sdxl", "sd3"], now) == "sd3"


def test_the_first_call_may_take_an_hour(tmp_path, clock, limit):
    assert not late(tmp_path, float("inf"))
    with limit.calling("transformer", 100):
        assert not late(tmp_path, clock.now + FIRST_SECONDS)
        assert late(tmp_path, clock.now + FIRST_SECONDS + 0.1)
    assert not late(tmp_path, float("inf"))


@pytest.mark.parametrize(
    ("took", "work", "allowed"),
    [
        (0.1, 100, LEAST_SECONDS),
        (5.0, 100, FACTOR * 5.0),
        (5.0, 50, FACTOR * 5.0),
        (5.0, 300, 9 * FACTOR * 5.0),
    ],
)
def test_the_limit_grows_with_the_slowest_call_and_the_work(limit, clock, took, work, allowed):
    for seconds in (took / 2, took, took / 3):
        with limit.calling("transformer", 100):
            clock.now += seconds
    assert limit.seconds("transformer", work) == pytest.approx(allowed)
    assert limit.seconds("vae", work) == FIRST_SECONDS


def test_a_failed_call_is_over(tmp_path, limit):
    with pytest.raises(KeyError), limit.calling("transformer", 1):
        raise KeyError
    assert not late(tmp_path, float("inf"))


@pytest.mark.parametrize("seed", range(20))
def test_of_many_calls_the_first_to_be_due_counts(tmp_path, clock, limit, seed):
    drawn = random.Random(seed)
    for model in "abc":
        with limit.calling(model, 10):
            clock.now += drawn.uniform(0, 20)
    calls = {}
    for step in range(40):
        clock.now += drawn.uniform(0, 5)
        if calls and drawn.random() < 0.4:
            stack, _ = calls.pop(drawn.choice(list(calls)))
            stack.close()
        else:
            model, work, stack = drawn.choice("abc"), drawn.randrange(1, 40), ExitStack()
            due = clock.now + limit.seconds(model, work)
            stack.enter_context(limit.calling(model, work))
            calls[step] = stack, due
        first = min((due for _, due in calls.values()), default=None)
        if first is None:
            assert not late(tmp_path, float("inf"))
        else:
            assert not late(tmp_path, first - 1e-6)
            assert late(tmp_path, first + 1e-6)
