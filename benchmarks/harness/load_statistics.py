"""Figures of a run under load: steps, batches, throughput, latency."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.harness.load_generator import Mark, Outcome
from benchmarks.harness.workload import Resolution

# The number of denoiser calls, by resolution and number of pictures.
Batches = Counter[tuple[Resolution, int]]


@dataclass(frozen=True)
class Window:
    """The interval of a run, in seconds, in which every lane was busy."""

    start: float
    end: float


def busy(outcomes: Sequence[Outcome]) -> Window:
    """From the first completed request, when every lane has started, until the last one is sent."""
    return Window(min(o.done for o in outcomes), max(o.sent for o in outcomes))


WHOLE = Window(-math.inf, math.inf)


def spans(marks: Iterable[Mark], window: Window) -> Iterator[tuple[int, int]]:
    """Steps between a picture's successive events in the window, with their mean batch."""
    step, total = 0, 0.0
    for mark in marks:
        so_far = mark.step * mark.mean_batch
        if mark.step > step and window.start < mark.at <= window.end:
            yield mark.step - step, round((so_far - total) / (mark.step - step))
        step, total = mark.step, so_far


def batches(outcomes: Iterable[Outcome], window: Window = WHOLE) -> Batches:
    """Denoiser calls by resolution and pictures; all n pictures of a batch report the batch."""
    told: Batches = Counter()
    for outcome in outcomes:
        for steps, size in spans(outcome.marks, window):
            told[outcome.ask.resolution, size] += steps
    return Counter({key: max(1, round(count / key[1])) for key, count in told.items()})


def mean_batch(calls: Batches) -> float:
    """Pictures per denoiser call."""
    return sum(size * count for (_, size), count in calls.items()) / max(calls.total(), 1)


def throughput(outcomes: Sequence[Outcome], window: Window) -> float:
    """Pictures per second in a window of the run in which every lane was busy.

    Counts steps and divides by the mean steps per picture, so that the result does not depend on
    which requests ended within the window.
    """
    steps = sum(n for outcome in outcomes for n, _ in spans(outcome.marks, window))
    per_picture = np.mean([outcome.marks[-1].step for outcome in outcomes if not outcome.error])
    return float(steps / (window.end - window.start) / per_picture)


def latency(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """Latency percentiles in seconds from the scheduled arrival, of successful requests."""
    seconds = [outcome.latency for outcome in outcomes if not outcome.error]
    return {f"p{p}": round(float(np.percentile(seconds, p)), 3) for p in (50, 90, 99)}


def errors(outcomes: Iterable[Outcome]) -> Mapping[str, int]:
    """The number of failed requests by error class."""
    return dict(Counter(outcome.error for outcome in outcomes if outcome.error))


def goodput(outcomes: Sequence[Outcome], patience: float) -> float:
    """Share of requests that succeeded within ``patience`` seconds per step."""
    good = [o for o in outcomes if not o.error and o.latency <= patience * o.marks[-1].step]
    return round(len(good) / len(outcomes), 4)


def summary(outcomes: Sequence[Outcome], patience: float) -> dict[str, Any]:
    """The figures of an open-loop run."""
    return {
        "requests": len(outcomes),
        "errors": errors(outcomes),
        "latency_seconds": latency(outcomes),
        "mean_batch": round(mean_batch(batches(outcomes)), 2),
        "in_good_time": goodput(outcomes, patience),
    }
