"""Measures what the text encoders of a served checkpoint cost when prompts repeat.

Requests have one step. Give a checkpoint with full-size encoders and a narrow denoiser, so that the
encoders take most of a picture's time.
"""

import random
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.full_size.apart import Figures
from benchmarks.harness.leaks import processes_of
from stepwise.client import Client
from stepwise.server.process import Server, serving

# Shares of the requests with a repeated prompt.
REPEATED = (0.0, 0.5, 0.9, 1.0)
ROUNDS, REQUESTS, LANES, SIDE = 3, 20, 4, 512
KNOWN = [f"a red star above {count} blue circles" for count in range(10)]


def measure(family: str, repository: Path) -> Figures:
    """CPU seconds of the server, and seconds, per picture for each share of repeated prompts.

    Medians of ``ROUNDS`` rounds; each round measures all shares, in another order.
    """
    cpu: dict[float, list[float]] = {share: [] for share in REPEATED}
    wall: dict[float, list[float]] = {share: [] for share in REPEATED}
    with serving(repository) as server:
        client, drawn = Client(server.grpc_url), random.Random(0)
        _send(client, family, KNOWN)
        for _ in range(ROUNDS):
            for share in drawn.sample(REPEATED, len(REPEATED)):
                prompts = [_prompt(drawn, share) for _ in range(REQUESTS)]
                before, began = _cpu_seconds(server), time.monotonic()
                _send(client, family, prompts)
                wall[share].append((time.monotonic() - began) / REQUESTS)
                cpu[share].append((_cpu_seconds(server) - before) / REQUESTS)
    median = {share: statistics.median(values) for share, values in cpu.items()}
    return {
        "requests": f"{REQUESTS} of one step from {LANES} clients, {ROUNDS} rounds",
        "cpu_seconds_per_picture": {f"{share:.0%} repeated": s for share, s in median.items()},
        "seconds_per_picture": {
            f"{share:.0%} repeated": statistics.median(values) for share, values in wall.items()
        },
        "cpu of a picture at 90% repeated over none": median[0.9] / median[0.0],
    }


def _prompt(drawn: random.Random, repeated: float) -> str:
    if drawn.random() < repeated:
        return drawn.choice(KNOWN)
    return f"a red star above {drawn.randrange(10**9)} blue circles"


def _send(client: Client, family: str, prompts: list[str]) -> None:
    def draw(prompt: str) -> None:
        client.pictures(family, prompt, steps=1, height=SIDE, width=SIDE, seed=0)

    with ThreadPoolExecutor(LANES) as lanes:
        list(lanes.map(draw, prompts))


def _cpu_seconds(server: Server) -> float:
    """CPU seconds that the server has used."""
    times = [process.cpu_times() for process in processes_of(server)]
    return sum(each.user + each.system for each in times)
