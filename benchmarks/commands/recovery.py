"""Measures the seconds from the death of each process of a server to the next picture."""

import statistics
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil

from stepwise.client import Client
from stepwise.server.flags import Ports
from stepwise.server.health import TRITON, models
from stepwise.server.process import Server, serving
from stepwise.server.supervisor import WITHIN_SECONDS, supervise

# So long that every start follows at once.
_BETWEEN_SECONDS = 1.1 * WITHIN_SECONDS


class _Measured(Exception):
    """Every process was killed once."""


class _Killer:
    """Kills another process of each server that is ready."""

    def __init__(self, pipeline: str) -> None:
        self._pipeline = pipeline
        self._killed: list[str] = []
        self._since = time.monotonic()
        self.seconds: list[float] = []

    def ready(self, server: Server) -> None:
        """Make a picture, note the seconds since the last death, and cause the next one."""
        with Client(server.grpc_url) as client:
            client.pictures(self._pipeline, "a red star", steps=1)
        self.seconds.append(time.monotonic() - self._since)
        print(f"  {self.seconds[-1]:6.2f} s", *self._killed[-1:], flush=True)
        processes = _processes(server)
        left = [name for name in processes if name not in self._killed]
        if not left:
            raise _Measured
        time.sleep(_BETWEEN_SECONDS)
        self._killed.append(left[0])
        self._since = time.monotonic()
        processes[left[0]].kill()

    def figures(self) -> dict[str, Any]:
        """The first start's seconds, and those after the death of each process."""
        start, *recoveries = self.seconds
        found = dict(zip(self._killed, recoveries, strict=True))
        median = statistics.median(recoveries)
        print(
            f"start {start:.2f} s, median recovery {median:.2f} s, slowest {max(recoveries):.2f} s"
        )
        return {"start_seconds": start, "recovery_seconds": found, "median_seconds": median}


def measure(repository: Path, pipeline: str) -> dict[str, Any]:
    """Serve one pipeline, kill each of its processes in turn and time the next picture."""
    killer = _Killer(pipeline)

    def start(ports: Ports) -> AbstractContextManager[Server]:
        return serving(repository, ports.grpc, ports.http, ports.metrics, names=[pipeline])

    try:
        supervise(start, Ports(0, 0, 0), killer.ready)
    except _Measured:
        return killer.figures()


def _processes(server: Server) -> dict[str, psutil.Process]:
    """Triton and its models' processes, by name."""
    names = {server.pid: TRITON, **models(server.pid)}
    return {name: psutil.Process(process) for process, name in names.items()}
