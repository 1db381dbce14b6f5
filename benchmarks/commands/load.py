"""Compares in-flight batching with a batch cap of 1, on two servers under load.

Both servers run at once and take turns with the same requests, block by block, so that drifting
machine speed affects them equally. Ratios are taken within a round; results are their medians. For
comparison, it measures the bare graph's gain: the graph's time for the same steps one picture at a
time, over its time for the batches that occurred in flight.
"""

import asyncio
import statistics
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.harness import admission, load_statistics, plots, unbatched_repository
from benchmarks.harness.denoiser_only import Bare
from benchmarks.harness.load_generator import Outcome, Send, closed_loop, open_loop, poisson, sender
from benchmarks.harness.workload import WORKLOADS, Ask, draw, resolutions
from stepwise.client import AsyncClient
from stepwise.description.manifest import Manifest, Sides
from stepwise.server.process import Server, serving

IN_FLIGHT, CAP_1 = "in_flight", "cap_1"
CLOSED, OPEN = ("steps", "mixed"), "mixed"
# A picture counts as timely within this multiple of its latency on an idle server.
PATIENCE = 5


@dataclass(frozen=True)
class Plan:
    """The amount to measure: rounds of a closed loop and blocks of an open one.

    ``load`` is the open loop's rate as a share of the closed loop's throughput at cap 1.
    """

    lanes: int = 16
    rounds: int = 4
    requests: int = 96
    blocks: int = 4
    arrivals: int = 130
    load: float = 0.7
    joins: int = 20
    calls: int = 15


def measure(server: Server, name: str, plot: Path, plan: Plan = Plan()) -> dict[str, Any]:
    """Throughput, latency and the delay of joining requests; writes a plot to ``plot``."""
    repository = server.settings.repository
    sides = Manifest.read(repository / name).sides
    sizes = resolutions(sides).values()
    with ExitStack() as stack:
        alone = stack.enter_context(unbatched_repository.one_at_a_time(repository, name, sizes))
        urls = {
            IN_FLIGHT: server.grpc_url,
            CAP_1: stack.enter_context(serving(alone, names=[name])).grpc_url,
        }
        bare = Bare(repository, name)
        return asyncio.run(_measure(urls, name, bare, plan, plot))


async def _measure(
    urls: Mapping[str, str], name: str, bare: Bare, plan: Plan, plot: Path
) -> dict[str, Any]:
    sends = {way: sender(AsyncClient(url), name) for way, url in urls.items()}
    closed = {workload: await _closed(sends, bare, workload, plan) for workload in CLOSED}
    rate = plan.load * closed[OPEN]["pictures_per_second"][CAP_1]
    runs = await _open(sends, bare.manifest.sides, OPEN, rate, plan)
    alone = await _alone(sends[CAP_1], [outcome.ask for outcome in runs[CAP_1][:8]])
    joined = await admission.measure(sends[IN_FLIGHT], bare.manifest.sides, plan.joins)
    plots.load(closed, {OPEN: {way: [o.latency for o in run] for way, run in runs.items()}}, plot)
    return {
        "lanes": plan.lanes,
        "closed_loop": closed,
        "open_loop": {
            "workload": OPEN,
            "share_of_cap_1_capacity": plan.load,
            "arrivals_per_second": round(rate, 3),
            "patience": PATIENCE,
            **{way: load_statistics.summary(run, PATIENCE * alone) for way, run in runs.items()},
        },
        "joining": joined,
    }


async def _alone(send: Send, asks: Sequence[Ask]) -> float:
    """Seconds per step of a request on an otherwise idle server."""
    solo = await closed_loop(send, asks, lanes=1)
    return statistics.median(outcome.latency / outcome.marks[-1].step for outcome in solo)


@dataclass(frozen=True)
class Round:
    """The same requests on each server, and the bare graph's gain for their batches."""

    runs: Mapping[str, list[Outcome]]
    bare_gain: float

    @property
    def rates(self) -> dict[str, float]:
        """Pictures per second."""
        return {
            way: load_statistics.throughput(run, load_statistics.busy(run))
            for way, run in self.runs.items()
        }

    @property
    def gain(self) -> float:
        """Throughput in flight over throughput at cap 1."""
        return self.rates[IN_FLIGHT] / self.rates[CAP_1]

    @property
    def sizes(self) -> dict[str, float]:
        """Pictures per denoiser call."""
        return {
            way: load_statistics.mean_batch(_busy_batches(run)) for way, run in self.runs.items()
        }


async def _closed(
    sends: Mapping[str, Send], bare: Bare, workload: str, plan: Plan
) -> dict[str, Any]:
    """Rounds of a closed loop; the first is the warm-up."""
    rounds = []
    for seed in tqdm(range(plan.rounds + 1), f"closed loop, {workload}"):
        asks = draw(WORKLOADS[workload], bare.manifest.sides, plan.requests, seed)
        runs = {way: await closed_loop(send, asks, plan.lanes) for way, send in sends.items()}
        rounds.append(Round(runs, bare.gain(_busy_batches(runs[IN_FLIGHT]), plan.calls)))
    return _closed_figures(rounds[1:])


def _closed_figures(rounds: Sequence[Round]) -> dict[str, Any]:
    runs = {way: [o for each in rounds for o in each.runs[way]] for way in (IN_FLIGHT, CAP_1)}
    return {
        "requests": {way: len(run) for way, run in runs.items()},
        "errors": {way: load_statistics.errors(run) for way, run in runs.items()},
        "latency_seconds": {way: load_statistics.latency(run) for way, run in runs.items()},
        "mean_batch": {way: _median(each.sizes[way] for each in rounds) for way in runs},
        "pictures_per_second": {way: _median(each.rates[way] for each in rounds) for way in runs},
        "gain_in_flight": _median(each.gain for each in rounds),
        "gain_of_bare_graph": _median(each.bare_gain for each in rounds),
        "share_of_bare_gain": _median(each.gain / each.bare_gain for each in rounds),
        "gains_by_round": [round(each.gain, 3) for each in rounds],
        "bare_gains_by_round": [round(each.bare_gain, 3) for each in rounds],
    }


def _busy_batches(run: Sequence[Outcome]) -> load_statistics.Batches:
    return load_statistics.batches(run, load_statistics.busy(run))


def _median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 3)


async def _open(
    sends: Mapping[str, Send], sides: Sides, workload: str, rate: float, plan: Plan
) -> dict[str, list[Outcome]]:
    """Send the same blocks of Poisson arrivals to each server."""
    runs: dict[str, list[Outcome]] = {way: [] for way in sends}
    for block in tqdm(range(plan.blocks), f"open loop, {workload}"):
        asks = draw(WORKLOADS[workload], sides, plan.arrivals, seed=1000 + block)
        arrivals = poisson(rate, plan.arrivals, seed=1000 + block)
        for way, send in sends.items():
            runs[way] += await open_loop(send, asks, arrivals)
    return runs
