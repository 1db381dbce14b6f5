"""Measures the resources of a server: resident memory, shared memory, threads, requests."""

import re
import statistics
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from stepwise.server.process import Server

# The server updates its metrics once a second.
SETTLE_SECONDS = 10.0
_SHARED_MEMORY = Path("/dev/shm")
_HELD = re.compile(r"^stepwise_(?:active|waiting)\S*\s+(\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Residue:
    """Bytes resident in Triton's processes, bytes in shared memory, threads and requests."""

    resident: int
    shared: int
    threads: int
    descriptors: int
    requests: int


def processes_of(server: Server) -> list[psutil.Process]:
    """Triton and its Python models."""
    root = psutil.Process(server.pid)
    return [root, *root.children(recursive=True)]


def look(server: Server) -> Residue:
    """The current resources of the server and its Python models."""
    processes = processes_of(server)
    regions = _SHARED_MEMORY.glob(f"{server.settings.shm_prefix}*")
    return Residue(
        resident=sum(process.memory_info().rss for process in processes),
        shared=sum(512 * region.stat().st_blocks for region in regions),
        threads=sum(process.num_threads() for process in processes),
        descriptors=sum(process.num_fds() for process in processes),
        requests=_requests(server),
    )


def settled(server: Server, seconds: float = SETTLE_SECONDS) -> Residue:
    """As ``look``, once the server counts no requests or ``seconds`` have passed."""
    until = time.monotonic() + seconds
    while (found := look(server)).requests and time.monotonic() < until:
        time.sleep(SETTLE_SECONDS / 20)
    return found


def growth(values: Sequence[float]) -> float:
    """The relative growth from the median of the first fifth to that of the last fifth."""
    fifth = max(len(values) // 5, 1)
    return statistics.median(values[-fifth:]) / statistics.median(values[:fifth]) - 1


def _requests(server: Server) -> int:
    """The number of active and waiting requests in the server's metrics."""
    with urllib.request.urlopen(server.metrics_url, timeout=10) as page:
        held = _HELD.findall(page.read().decode())
    return round(sum(float(value) for value in held))
