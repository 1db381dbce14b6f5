"""Seconds per picture: served, in one process without Triton, and diffusers in eager torch.

All are measured in turn in one run on the same cores, round after round; the median counts. One
picture at a time, then eight at once: the server gets eight concurrent requests, diffusers makes
them one after another and as one batch.
"""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.inprocess import InProcess
from benchmarks.peers import Diffusers
from client import Client
from pipelines.manifest import Manifest
from server.process import serving

STEPS = 20
ROUNDS = 7
AT_ONCE = 8
PROMPTS = [
    f"a large {colour} {shape} in the {place} on a white background"
    for colour, shape, place in (
        ("red", "star", "top left"),
        ("green", "circle", "center"),
        ("blue", "square", "top right"),
        ("yellow", "triangle", "bottom left"),
        ("purple", "star", "bottom right"),
        ("orange", "circle", "top left"),
        ("red", "square", "center"),
        ("green", "triangle", "bottom right"),
    )
]
SEEDS = list(range(AT_ONCE))


def measure(repository: Path, checkpoint: Path, name: str) -> dict[str, Any]:
    """Medians in seconds and milliseconds, and the ratios between them."""
    manifest = Manifest.read(repository / f"{name}_prepare")
    diffusers = Diffusers(checkpoint, manifest.tokens.get("t5"))
    bare = InProcess(repository, name)
    with serving(repository) as server, ThreadPoolExecutor(AT_ONCE) as threads:
        client = Client(server.grpc_url)

        def served(index: int) -> object:
            settings = {"steps": STEPS, "seed": SEEDS[index]}
            return client.pictures(name, PROMPTS[index], **settings)

        ways: dict[str, Callable[[], object]] = {
            "served_1": lambda: served(0),
            "in_process_1": lambda: bare.picture(PROMPTS[0], steps=STEPS, seed=SEEDS[0]),
            "diffusers_1": lambda: diffusers.pictures(PROMPTS[:1], SEEDS[:1], STEPS),
            "served_8": lambda: list(threads.map(served, range(AT_ONCE))),
            "diffusers_8_serial": lambda: [
                diffusers.pictures([prompt], [seed], STEPS)
                for prompt, seed in zip(PROMPTS, SEEDS, strict=True)
            ],
            "diffusers_8_batch": lambda: diffusers.pictures(PROMPTS, SEEDS, STEPS),
        }
        return _figures(_medians(ways))


def _medians(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each way, in turn, one warm-up round first."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(ROUNDS + 1):
        for way, run in ways.items():
            started = time.perf_counter()
            run()
            if turn:
                seconds[way].append(time.perf_counter() - started)
    return {way: statistics.median(values) for way, values in seconds.items()}


def _figures(median: dict[str, float]) -> dict[str, Any]:
    per_picture = {
        way: round(seconds / (AT_ONCE if "_8" in way else 1), 4) for way, seconds in median.items()
    }
    return {
        "steps": STEPS,
        "rounds": ROUNDS,
        "seconds_per_picture": per_picture,
        "milliseconds_per_step_served": round(1000 * median["served_1"] / STEPS, 2),
        "milliseconds_per_step_in_process": round(1000 * median["in_process_1"] / STEPS, 2),
        "overhead_of_triton": round(median["served_1"] / median["in_process_1"], 3),
        "speedup_over_diffusers_at_1": round(median["diffusers_1"] / median["served_1"], 2),
        "speedup_over_diffusers_serial_at_8": round(
            median["diffusers_8_serial"] / median["served_8"], 2
        ),
        "speedup_over_diffusers_batch_at_8": round(
            median["diffusers_8_batch"] / median["served_8"], 2
        ),
    }
