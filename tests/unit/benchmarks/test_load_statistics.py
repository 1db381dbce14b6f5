"""Statistics of load runs, compared with values computed by hand."""

import pytest

from benchmarks.harness import load_statistics
from benchmarks.harness.leaks import growth
from benchmarks.harness.load_statistics import Window
from tests.support.load import SIZE, outcome

# Four steps alone, then four in a batch of three.
MARKS = [(1.0, 4, 1.0), (2.0, 8, 2.0)]


def test_batch_sizes_are_inferred_between_events():
    # Three pictures report the steps that they share; the event at 9 s is outside the window.
    run = [outcome([*MARKS, (9.0, 12, 5.0)]), outcome([(2.0, 4, 3.0)]), outcome([(2.0, 4, 3.0)])]
    calls = load_statistics.batches(run, Window(0.0, 3.0))
    assert calls == {(SIZE, 1): 4, (SIZE, 3): 4}
    assert load_statistics.mean_batch(calls) == 2.0


def test_throughput_counts_steps_while_every_lane_is_busy():
    # Busy from 1 s (first response) to 3 s (last request sent): 4 + 4 steps in 2 s, for pictures
    # with 4 steps on average.
    run = [
        outcome([(1.0, 4, 1.0)], done=1.0),
        outcome([(2.0, 4, 1.0)], sent=1.0, done=2.0),
        outcome([(3.0, 4, 1.0)], sent=2.0, done=3.0),
        outcome([(4.0, 4, 1.0)], sent=3.0, done=4.0),
    ]
    assert load_statistics.throughput(run, load_statistics.busy(run)) == pytest.approx(1.0)


def test_latency_counts_from_the_schedule_and_leaves_out_errors():
    run = [outcome([], scheduled=float(i), sent=i + 5.0, done=i + 10.0) for i in range(9)]
    run.append(outcome([], done=100.0, error="TimedOut"))
    assert load_statistics.latency(run) == {"p50": 10.0, "p90": 10.0, "p99": 10.0}
    assert load_statistics.errors(run) == {"TimedOut": 1}


def test_goodput_is_the_share_within_the_patience():
    slow, quick = outcome([(1.0, 4, 1.0)], done=9.0), outcome([(1.0, 4, 1.0)], done=4.0)
    failed = outcome([], error="RequestFailed")
    assert load_statistics.goodput([slow, quick, quick, failed], patience=1.0) == 0.5


def test_growth_compares_the_last_fifth_with_the_first():
    assert growth([100] * 20) == 0
    assert growth([100] * 5 + [500] + [110] * 5) == pytest.approx(0.1)
