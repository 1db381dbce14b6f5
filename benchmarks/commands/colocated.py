"""Measures the share of its speed that a pipeline keeps when SDXL-Turbo runs on the same server.

Each pipeline runs alone and both run together, in turns on the same server, for the same time with
the same number of clients. Since both share the same cores, fair treatment leaves each about half.
"""

import asyncio
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from benchmarks.harness import load_statistics
from benchmarks.harness.load_generator import Outcome, Send, closed_loop, lasting, sender
from benchmarks.harness.load_statistics import Window
from benchmarks.harness.tasks import TASKS
from benchmarks.harness.workload import WORKLOADS, Ask, draw
from stepwise.client import AsyncClient
from stepwise.description.manifest import Manifest
from stepwise.server.process import Server

OTHER = "sdxl_turbo"
# A pipeline that keeps less of its speed is starved.
LEAST_SHARE = 0.25
# Requests drawn for each round, and repeated if they finish early.
DRAWN = 256
ALONE, TOGETHER = "alone", "together"

Runs = Mapping[str, list[Outcome]]


@dataclass(frozen=True)
class Plan:
    """The amount to measure: ``lanes`` clients per pipeline, ``seconds`` per run."""

    lanes: int = 8
    rounds: int = 4
    seconds: float = 15.0


@dataclass(frozen=True)
class Round:
    """The outcomes by way and pipeline, and the window in which all lanes were busy."""

    runs: Mapping[str, Runs]
    window: Window

    def rate(self, way: str, name: str) -> float:
        """Pictures per second."""
        return load_statistics.throughput(self.runs[way][name], self.window)

    def share(self, name: str) -> float:
        """The share of its speed that a pipeline keeps when both run."""
        return self.rate(TOGETHER, name) / self.rate(ALONE, name)


def measure(server: Server, name: str, plan: Plan = Plan()) -> dict[str, Any]:
    """Throughput and latency of both, alone and together, and the share that each keeps.

    Raises ValueError if the pipeline is ``OTHER``.
    """
    if name == OTHER:
        raise ValueError(f"got {name}, which is the neighbour; name a pipeline other than {OTHER}")
    repository = server.settings.repository
    manifests = {each: Manifest.read(repository / each) for each in (name, OTHER)}
    rounds = asyncio.run(_rounds(server.grpc_url, manifests, plan))
    return _figures(rounds[1:], plan)


async def _rounds(url: str, manifests: Mapping[str, Manifest], plan: Plan) -> list[Round]:
    """Rounds with the same requests for each way; the first round is the warm-up."""
    sends = {name: sender(AsyncClient(url), name) for name in manifests}
    rounds = []
    for seed in tqdm(range(plan.rounds + 1), "alone and together"):
        asks = {name: _asks(manifest, seed) for name, manifest in manifests.items()}
        alone = {name: (await _run({name: send}, asks, plan))[name] for name, send in sends.items()}
        together = await _run(sends, asks, plan)
        rounds.append(Round({ALONE: alone, TOGETHER: together}, Window(0, plan.seconds)))
    return rounds


def _asks(manifest: Manifest, seed: int) -> list[Ask]:
    workload = WORKLOADS[TASKS[manifest.family].workload]
    return draw(workload, manifest.sides, DRAWN, seed)


async def _run(
    sends: Mapping[str, Send], asks: Mapping[str, Sequence[Ask]], plan: Plan
) -> dict[str, list[Outcome]]:
    """Keep all lanes of these pipelines busy for ``plan.seconds``."""
    loops = [
        closed_loop(send, lasting(asks[name], plan.seconds), plan.lanes)
        for name, send in sends.items()
    ]
    return dict(zip(sends, await asyncio.gather(*loops), strict=True))


def _figures(rounds: Sequence[Round], plan: Plan) -> dict[str, Any]:
    names = list(rounds[0].runs[TOGETHER])
    ways = {way: {name: _way(rounds, way, name) for name in names} for way in (ALONE, TOGETHER)}
    shares = {name: _median(each_round.share(name) for each_round in rounds) for name in names}
    return {
        "lanes_of_each": plan.lanes,
        "seconds_of_a_run": plan.seconds,
        **ways,
        "share_kept": shares,
        "shares_kept_by_round": {
            name: [round(each_round.share(name), 3) for each_round in rounds] for name in names
        },
        "least_share": LEAST_SHARE,
        "failures": starved(shares)
        + [
            f"{way}, {name}: {found['errors']}"
            for way, by_name in ways.items()
            for name, found in by_name.items()
            if found["errors"]
        ],
    }


def starved(shares: Mapping[str, float]) -> list[str]:
    """An error sentence for each pipeline that keeps less than ``LEAST_SHARE`` of its speed."""
    return [
        f"{name} keeps {share} of its speed when both run; it must keep at least {LEAST_SHARE}"
        for name, share in shares.items()
        if share < LEAST_SHARE
    ]


def _way(rounds: Sequence[Round], way: str, name: str) -> dict[str, Any]:
    """One pipeline's figures in one way."""
    outcomes = [outcome for each_round in rounds for outcome in each_round.runs[way][name]]
    waits = [outcome.marks[0].queued_ms for outcome in outcomes if not outcome.error]
    latency = load_statistics.latency(outcomes)
    return {
        "requests": len(outcomes),
        "errors": load_statistics.errors(outcomes),
        "pictures_per_second": _median(each_round.rate(way, name) for each_round in rounds),
        "latency_seconds": {**latency, "worst": round(max(o.latency for o in outcomes), 3)},
        "worst_wait_for_first_step_seconds": round(max(waits) / 1000, 3),
        "mean_batch": round(load_statistics.mean_batch(load_statistics.batches(outcomes)), 2),
    }


def _median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 3)
