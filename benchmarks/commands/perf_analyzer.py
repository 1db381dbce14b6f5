"""Compares our load generator with NVIDIA's perf_analyzer: the same requests to one server."""

import asyncio
import csv
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.harness.load_generator import closed_loop, elapsed, sender
from benchmarks.harness.workload import WORKLOADS, Ask, draw
from stepwise.client import AsyncClient
from stepwise.description.manifest import Manifest
from stepwise.families import FAMILIES
from stepwise.server import embedded
from stepwise.server.process import Server

# Installed by `make perf`.
ANALYZER = Path(__file__).parents[2] / ".venv" / "perf_analyzer" / "bin" / "perf_analyzer"
# perf_analyzer's libraries; the pytriton wheel contains them under other names.
_LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}

LANES = 8
ROUNDS = 5
REQUESTS = 96


def measure(
    server: Server, name: str, rounds: int = ROUNDS, requests: int = REQUESTS
) -> dict[str, Any]:
    """Requests per second of both, and the median ratio of ours to theirs.

    Raises FileNotFoundError if perf_analyzer is not installed.
    """
    if not ANALYZER.is_file():
        raise FileNotFoundError(f"{ANALYZER} is missing: run make perf, which installs it")
    manifest = Manifest.read(server.settings.repository / name)
    ask = draw(WORKLOADS["fixed"], manifest.sides, 1, seed=0)[0]
    ours, theirs = [], []
    for number in tqdm(range(rounds + 1)):
        pair = (
            asyncio.run(_ours(server.grpc_url, name, ask, requests)),
            _theirs(server.grpc_url, name, ask, requests),
        )
        if number:
            ours.append(pair[0])
            theirs.append(pair[1])
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "lanes": LANES,
        "requests": requests,
        "settings": {**ask.settings, "prompt": ask.prompt},
        "requests_per_second_ours": [round(rate, 3) for rate in ours],
        "requests_per_second_perf_analyzer": [round(rate, 3) for rate in theirs],
        "ours_over_perf_analyzer": round(statistics.median(ratios), 3),
    }


async def _ours(url: str, name: str, ask: Ask, requests: int) -> float:
    client = AsyncClient(url)
    outcomes = await closed_loop(sender(client, name), [ask] * requests, LANES)
    return requests / elapsed(outcomes)


def _theirs(url: str, name: str, ask: Ask, requests: int) -> float:
    """Requests per second from perf_analyzer's report, which counts responses separately."""
    with tempfile.TemporaryDirectory(prefix="stepwise-perf-") as temporary:
        folder = Path(temporary)
        for library, pattern in _LIBRARIES.items():
            (folder / library).symlink_to(next(embedded.LIBRARIES.glob(pattern)))
        content, report = folder / "requests.json", folder / "report.csv"
        content.write_text(json.dumps({"data": [_tensors(name, ask)]}))
        subprocess.run(
            [
                *(ANALYZER, "-m", name, "-u", url, "-i", "grpc", "--streaming", "--async"),
                *("--input-data", content, "--concurrency-range", str(LANES)),
                *("--request-count", str(requests), "-f", report),
            ],
            env={**os.environ, "LD_LIBRARY_PATH": temporary},
            check=True,
            capture_output=True,
        )
        with report.open() as lines:
            return float(next(csv.DictReader(lines))["Inferences/Second"])


def _tensors(name: str, ask: Ask) -> dict[str, Any]:
    """A request in perf_analyzer's input format, each tensor with its shape."""
    values = {"prompt": ask.prompt, **ask.settings}
    known = {tensor.name for tensor in FAMILIES[name].request}
    assert set(values) <= known, f"{name} lacks {set(values) - known}"
    return {key: {"content": [value], "shape": [1]} for key, value in values.items()}
