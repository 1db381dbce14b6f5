"""The gain of batching at every step: eight requests of different lengths, at once and in turn.

For comparison, it measures the bare graph's gain: the graph's time for the same steps one request
at a time, over its time for the batch sizes that occurred with concurrent requests.
"""

import asyncio
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.commands.latency import PROMPTS
from benchmarks.harness.denoiser_only import Bare
from benchmarks.harness.diffusers_baseline import psnr
from benchmarks.harness.load_generator import Outcome, closed_loop, elapsed, open_loop, sender
from benchmarks.harness.load_statistics import batches
from benchmarks.harness.workload import Ask
from stepwise.client import AsyncClient
from stepwise.server.process import serving

STEPS = (40, 10, 31, 18, 36, 14, 27, 22)
STAGGER_SECONDS = 0.02
ROUNDS = 5
CALLS = 15


def measure(repository: Path, name: str) -> dict[str, Any]:
    """Throughput of concurrent over sequential requests, the bare graph's gain, the worst PSNR."""
    with serving(repository) as server:
        return asyncio.run(_measure(Bare(repository, name), server.grpc_url, name))


async def _measure(bare: Bare, url: str, name: str) -> dict[str, Any]:
    client, side = AsyncClient(url), bare.manifest.sides.native
    send = sender(client, name)
    asks = [
        Ask(PROMPTS[index], (side, side), {"steps": steps, "seed": index})
        for index, steps in enumerate(STEPS)
    ]
    gains, bare_gains, worst = [], [], float("inf")
    for number in range(ROUNDS + 1):
        solo = await closed_loop(send, asks, lanes=1)
        together = await open_loop(send, asks, [STAGGER_SECONDS * i for i in range(len(asks))])
        calls = batches(together)
        worst = min(worst, _closeness(together, solo))
        if number:
            gains.append(elapsed(solo) / elapsed(together))
            bare_gains.append(bare.gain(calls, CALLS))
    gain, bare_gain = statistics.median(gains), statistics.median(bare_gains)
    return {
        "steps": STEPS,
        "denoiser_calls_by_batch": {str(size): count for (_, size), count in sorted(calls.items())},
        "gain_in_flight": round(gain, 3),
        "gain_of_bare_graph": round(bare_gain, 3),
        "share_of_bare_gain": round(gain / bare_gain, 3),
        "worst_psnr_against_solo": worst if np.isfinite(worst) else "identical",
    }


def _closeness(pictures: Sequence[Outcome], references: Sequence[Outcome]) -> float:
    """The worst PSNR in dB; both sequences are in the same order."""
    pairs = zip(pictures, references, strict=True)
    return min(psnr(picture.picture, reference.picture) for picture, reference in pairs)
