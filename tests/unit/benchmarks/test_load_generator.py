"""Load is sent on schedule, and latency counts from the scheduled time."""

import asyncio
import itertools

import numpy as np

from benchmarks.harness.load_generator import closed_loop, lasting, open_loop, poisson
from benchmarks.harness.workload import Ask
from tests.support.load import ASK, SIZE, Server


def test_poisson_arrivals_have_their_rate_and_exponential_gaps():
    gaps = np.diff(poisson(rate=5.0, count=20_000, seed=0), prepend=0.0)
    print(f"mean gap {gaps.mean():.4f} s, spread {gaps.std():.4f} s; both 0.2 within 3%")
    assert abs(gaps.mean() - 0.2) < 0.006
    assert abs(gaps.std() - 0.2) < 0.006
    assert poisson(5.0, 10, seed=3) == poisson(5.0, 10, seed=3) != poisson(5.0, 10, seed=4)


def test_a_closed_loop_keeps_exactly_its_lanes_busy():
    server = Server(0.001)
    outcomes = asyncio.run(closed_loop(server.send, [ASK] * 20, lanes=3))
    assert len(outcomes) == 20
    assert server.most_at_once == 3
    assert all(outcome.scheduled <= outcome.sent <= outcome.done for outcome in outcomes)


def test_latency_of_an_open_loop_includes_waiting():
    server = Server(0.05)
    outcomes = asyncio.run(open_loop(server.send, [ASK] * 4, [0.0, 0.01, 0.02, 0.03]))
    assert server.most_at_once == 4
    assert [outcome.scheduled for outcome in outcomes] == [0.0, 0.01, 0.02, 0.03]
    # The last request finishes after 0.2 s at the earliest, 0.17 s after its scheduled time.
    print(f"latency of the last {outcomes[-1].latency:.3f} s, floor 0.17 s")
    assert outcomes[-1].latency >= 0.169


def test_an_error_is_an_outcome():
    bad = Ask("a star", SIZE, {"steps": 0})
    outcomes = asyncio.run(closed_loop(Server().send, [bad, ASK], lanes=1))
    assert [outcome.error for outcome in outcomes] == ["RequestFailed", ""]
    assert [mark.step for mark in outcomes[1].marks] == [1, 2]


def test_lasting_requests_repeat_until_their_time_ends():
    asks = [Ask(name, SIZE, {"steps": 4}) for name in ("a star", "a circle")]
    assert list(itertools.islice(lasting(asks, 3600), 5)) == [*asks, *asks, asks[0]]
    assert list(lasting(asks, 0)) == []
    # Without an end to the requests, this loop would not return.
    asyncio.run(closed_loop(Server().send, lasting(asks, 0.01), lanes=2))
