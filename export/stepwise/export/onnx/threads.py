"""Chooses how many threads run a small graph, by measurement."""

import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import onnxruntime

from stepwise.description.fields import Array
from stepwise.description.graph_files import GRAPH

# Larger graphs use every thread, and would take memory and minutes to measure.
LARGEST_BYTES = 200_000_000
ROUNDS, CALLS = 5, 3
# Threads take CPU time from other models, so they must shorten a call by more than this.
SLOWER = 1.1
ALL = 0


def choose(folder: Path, feed: Mapping[str, Array]) -> int:
    """The fewest threads that run the graph in ``folder`` about as fast as any number of them.

    ``feed`` holds the inputs of a usual request. ``ALL`` stands for all cores.
    """
    if sum(path.stat().st_size for path in folder.glob(f"{GRAPH}*")) > LARGEST_BYTES:
        return ALL
    cores = len(os.sched_getaffinity(0))
    counts = [*(2**power for power in range(cores.bit_length()) if 2**power < cores), cores]
    chosen = fewest({count: _Timed(folder / GRAPH, count, feed) for count in counts})
    return ALL if chosen == cores else chosen


def fewest(calls: Mapping[int, Callable[[], float]]) -> int:
    """The smallest key among the calls that take about as long as the fastest; each returns its
    seconds.
    """
    seconds: dict[int, list[float]] = {count: [] for count in calls}
    for _ in range(ROUNDS):
        for count, call in calls.items():
            seconds[count].append(call())
    medians = {count: statistics.median(times) for count, times in seconds.items()}
    return min(count for count, time in medians.items() if time <= SLOWER * min(medians.values()))


class _Timed:
    """Calls a graph as the server does, and returns the seconds."""

    def __init__(self, graph: Path, threads: int, feed: Mapping[str, Array]) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )
        self._feed = dict(feed)
        self()

    def __call__(self) -> float:
        began = time.perf_counter()
        for _ in range(CALLS):
            self._session.run(None, self._feed)
        return time.perf_counter() - began
