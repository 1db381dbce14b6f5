"""What batching at every step gains: eight requests of different lengths, in flight and in turn.

The bare graph's own gain stands beside it: its time for the batch sizes that really occurred in
flight, against its time for the same steps one request at a time.
"""

import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inprocess import InProcess
from benchmarks.latency import PROMPTS
from benchmarks.peers import psnr
from client import Client, Event
from pipelines.manifest import Manifest
from server.process import serving

STEPS = (40, 10, 31, 18, 36, 14, 27, 22)
STAGGER_SECONDS = 0.02
GUIDANCE_SLOTS = 2
ROUNDS = 5
CALLS = 15


def measure(repository: Path, name: str) -> dict[str, Any]:
    """Throughput in flight over one after another, the bare graph's gain, and both pictures."""
    with serving(repository) as server, ThreadPoolExecutor(len(STEPS)) as threads:
        client = Client(server.grpc_url)
        gains, bare_gains, worst, sizes = [], [], float("inf"), Counter[int]()
        for turn in range(ROUNDS + 1):
            started = time.perf_counter()
            solo = [_request(client, name, index, 0.0) for index in range(len(STEPS))]
            in_turn = time.perf_counter() - started
            started = time.perf_counter()
            waits = (STAGGER_SECONDS * index for index in range(len(STEPS)))
            together = list(
                threads.map(lambda pair: _request(client, name, *pair), enumerate(waits))
            )
            in_flight = time.perf_counter() - started
            worst = min(worst, *(_psnr(a, b) for a, b in zip(together, solo, strict=True)))
            if turn:
                sizes = _batch_sizes(together)
                gains.append(in_turn / in_flight)
                bare_gains.append(_bare_gain(repository, name, sizes))
    gain, bare = statistics.median(gains), statistics.median(bare_gains)
    return {
        "steps": STEPS,
        "denoiser_calls_by_batch": {str(size): sizes[size] for size in sorted(sizes)},
        "gain_in_flight": round(gain, 3),
        "gain_of_bare_graph": round(bare, 3),
        "share_of_bare_gain": round(gain / bare, 3),
        "worst_psnr_against_solo": worst if np.isfinite(worst) else "identical",
    }


def _request(client: Client, name: str, index: int, wait: float) -> list[Event]:
    """All events of one request that arrives after ``wait`` seconds."""
    time.sleep(wait)
    return list(client.generate(name, PROMPTS[index], steps=STEPS[index], seed=index))


def _psnr(events: list[Event], reference: list[Event]) -> float:
    return psnr(events[-1].image, reference[-1].image)


def _batch_sizes(requests: list[list[Event]]) -> Counter[int]:
    """How many denoiser calls were made for each number of pictures.

    Two events tell the mean size over the steps between them; a batch of n is told n times.
    """
    told: Counter[int] = Counter()
    for events in requests:
        step, total = 0, 0.0
        for event in events:
            sum_so_far = event.step * event.mean_batch
            told[round((sum_so_far - total) / (event.step - step))] += event.step - step
            step, total = event.step, sum_so_far
    return Counter({size: round(count / size) for size, count in told.items()})


def _bare_gain(repository: Path, name: str, sizes: Counter[int]) -> float:
    """The graph's time for all steps one picture at a time over that for these batches."""
    pipeline = InProcess(repository, name)
    manifest = Manifest.read(repository / f"{name}_prepare")
    milliseconds = {size: _graph(pipeline, manifest, size) for size in {1, *sizes}}
    together = sum(count * milliseconds[size] for size, count in sizes.items())
    return sum(STEPS) * milliseconds[1] / together


def _graph(pipeline: InProcess, manifest: Manifest, size: int) -> float:
    """Median milliseconds of one denoiser call for ``size`` guided pictures."""
    slots, side = size * GUIDANCE_SLOTS, manifest.sides.native // manifest.vae_scale
    latents = np.zeros((slots, manifest.latent_channels, side, side), np.float32)
    conditioning = pipeline.blank_conditioning(slots)
    times = []
    for _ in range(CALLS):
        started = time.perf_counter()
        pipeline.denoise(latents, np.full(slots, 500, np.float32), conditioning)
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)
