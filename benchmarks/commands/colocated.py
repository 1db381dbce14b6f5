"""A pipeline beside SDXL-Turbo on one server: what either keeps of the speed that it has alone.

Each is measured alone and both are measured together, on the same server in turns, for the same
time at the same number of clients. Two that have the same cores between them are treated alike if
each keeps about half.
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
# A pipeline that keeps less of its speed is starved by the other one.
LEAST_SHARE = 0.25
# So many requests are drawn for a each_round, and asked again if they do not last.
DRAWN = 256
ALONE, TOGETHER = "alone", "together"

Runs = Mapping[str, list[Outcome]]


@dataclass(frozen=True)
class Plan:
    """How much is measured: ``lanes`` clients of each pipeline, seconds of each run."""

    lanes: int = 8
    rounds: int = 4
    seconds: float = 15.0


@dataclass(frozen=True)
class Round:
    """What came of the requests by way and pipeline, and when all lanes were busy."""

    runs: Mapping[str, Runs]
    window: Window

    def rate(self, way: str, name: str) -> float:
        """Pictures per second."""
        return load_statistics.throughput(self.runs[way][name], self.window)

    def share(self, name: str) -> float:
        """What a pipeline keeps of its speed beside the other one."""
        return self.rate(TOGETHER, name) / self.rate(ALONE, name)


def measure(server: Server, name: str, plan: Plan = Plan()) -> dict[str, Any]:
    """Throughput and latency of both, alone and together, and the share that each keeps.

    Raises ValueError if the pipeline is the one that it is to be beside.
    """
    if name == OTHER:
        raise ValueError(f"{name} is measured beside {OTHER}: name another pipeline")
    repository = server.settings.repository
    manifests = {each: Manifest.read(repository / f"{each}_prepare") for each in (name, OTHER)}
    rounds = asyncio.run(_rounds(server.grpc_url, manifests, plan))
    return _figures(rounds[1:], plan)


async def _rounds(url: str, manifests: Mapping[str, Manifest], plan: Plan) -> list[Round]:
    """Turns with the same requests for each way, the first one to warm up."""
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
    """Keep the lanes of all these pipelines busy for ``plan.seconds``."""
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
    """A sentence for each pipeline that keeps too little of its speed."""
    return [
        f"{name} keeps {share} of its speed beside the other one; at least {LEAST_SHARE} is its due"
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
