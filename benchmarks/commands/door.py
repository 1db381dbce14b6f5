"""Measures ordinary requests alone and next to 64 requests with prompts of a megabyte."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.harness.workload import PROMPTS
from stepwise.client import Client
from stepwise.server.process import Server

ROUNDS = 3
LANES, REQUESTS, STEPS = 4, 10, 20
LARGE = 64
# The longest prompt that a pipeline takes, in words of a few tokens.
_BYTES = 1 << 20
_WORDS = "a large red star "


def measure(server: Server, name: str) -> dict[str, Any]:
    """Percentiles of the latency in seconds, in turn, and the ratio of their medians."""
    client = Client(server.grpc_url)
    _ordinary(client, name)
    prompts = {"alone": "", "next to short prompts": _WORDS, "next to large prompts": _large()}
    seconds: dict[str, list[float]] = {title: [] for title in prompts}
    for _ in range(ROUNDS):
        for title, prompt in prompts.items():
            seconds[title] += _next_to(client, name, prompt)
    percentiles = {
        title: {f"p{rank}": float(np.percentile(times, rank)) for rank in (50, 90, 99)}
        for title, times in seconds.items()
    }
    alone, large = percentiles["alone"]["p99"], percentiles["next to large prompts"]["p99"]
    return {
        "requests": f"{LANES} clients with {REQUESTS} requests of {STEPS} steps, {ROUNDS} rounds",
        "large": f"{LARGE} requests of one step with {_BYTES} bytes",
        "seconds": percentiles,
        "p99 next to large prompts over alone": large / alone,
    }


def _large() -> str:
    return (_WORDS * (_BYTES // len(_WORDS) + 1))[:_BYTES]


def _next_to(client: Client, name: str, prompt: str) -> list[float]:
    """Latencies of the ordinary requests while the large ones are sent, if there are any."""
    threads = [
        threading.Thread(
            target=client.pictures, args=(name, prompt), kwargs={"steps": 1, "client": "large"}
        )
        for _ in range(LARGE if prompt else 0)
    ]
    for thread in threads:
        thread.start()
    seconds = _ordinary(client, name)
    for thread in threads:
        thread.join()
    return seconds


def _ordinary(client: Client, name: str) -> list[float]:
    def lane(number: int) -> list[float]:
        seconds = []
        for index in range(REQUESTS):
            began = time.monotonic()
            prompt = PROMPTS[(number + index) % len(PROMPTS)]
            client.pictures(name, prompt, steps=STEPS, seed=index, client=f"lane {number}")
            seconds.append(time.monotonic() - began)
        return seconds

    with ThreadPoolExecutor(LANES) as lanes:
        return [each for times in lanes.map(lane, range(LANES)) for each in times]
