"""Measures the CPU time of a request outside of its graphs, by process."""

import json
import os
import resource
import statistics
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import grpc
import psutil
from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from benchmarks.harness.workload import PROMPTS
from stepwise.description.fields import Array
from stepwise.description.spec import Component
from stepwise.local import LocalPipeline
from stepwise.server.health import TRITON, models
from stepwise.server.process import Server

ROUNDS, REQUESTS = 9, 40
# Clients that request pictures at the same time.
LANES = 16
# Seconds without requests in which the idle server is measured.
_IDLE_SECONDS = 20


class _Graphs(LocalPipeline):
    """The same graphs in this process, which counts their CPU time."""

    seconds = 0.0

    def run(self, component: Component, feed: Mapping[str, Array]) -> Mapping[str, Array]:
        began = _own_seconds()
        try:
            return super().run(component, feed)
        finally:
            self.seconds += _own_seconds() - began


def measure(server: Server, name: str, steps: int, other: int | None) -> dict[str, Any]:
    """Milliseconds per request, served and in its graphs alone, and pictures per second, in turns.

    Every prompt is new to the server, so that each request runs its text encoders. ``other`` is
    the gRPC port of another version's server on this machine, to compare with.
    """
    graphs = _Graphs(server.settings.repository, name)
    versions = {"this": _Version(server.settings.ports.grpc, name, steps)}
    if other:
        versions["other"] = _Version(other, name, steps)
    prompts, alone = _prompts(), []
    for number in range(ROUNDS + 1):
        for version in versions.values():
            version.round(prompts, warm_up=not number)
        graphs.seconds = 0.0
        for _ in range(REQUESTS):
            graphs.generate(next(prompts), steps=steps, seed=1)
        if number:
            alone.append(1000 * graphs.seconds / REQUESTS)
    in_graphs = statistics.median(alone)
    figures: dict[str, Any] = {"requests": ROUNDS * REQUESTS, "steps": steps}
    figures["in_graphs_ms"] = round(in_graphs, 2)
    figures |= {label: version.figures(in_graphs) for label, version in versions.items()}
    if other:
        this, that = figures["this"], figures["other"]
        figures["ratios"] = {
            key: round(this[key] / that[key], 3) for key in this if isinstance(this[key], float)
        }
    print(json.dumps(figures, indent=2))
    return figures


class _Version:
    """A server, and what was measured of it so far."""

    def __init__(self, port: int, pipeline: str, steps: int) -> None:
        self._stub = GRPCInferenceServiceStub(grpc.insecure_channel(f"localhost:{port}"))
        self._triton = _listener(port)
        self._pipeline = pipeline
        self._steps = steps
        self._seconds: list[Counter[str]] = []
        self._walls: list[float] = []
        self._together: list[float] = []
        before = self._cpu()
        time.sleep(_IDLE_SECONDS)
        self._idle = (self._cpu() - before).total() / _IDLE_SECONDS

    def round(self, prompts: Iterator[str], warm_up: bool) -> None:
        """Request pictures one after another, then many at the same time."""
        before, began = self._cpu(), time.monotonic()
        for _ in range(REQUESTS):
            self._picture(next(prompts))
        wall, used = time.monotonic() - began, self._cpu() - before
        began = time.monotonic()
        with ThreadPoolExecutor(LANES) as lanes:
            list(lanes.map(self._picture, [next(prompts) for _ in range(4 * LANES)]))
        together = time.monotonic() - began
        if not warm_up:
            self._seconds.append(used)
            self._walls.append(1000 * wall / REQUESTS)
            self._together.append(4 * LANES / together)

    def figures(self, in_graphs: float) -> dict[str, Any]:
        """Medians over the rounds; ``in_graphs`` is the milliseconds of CPU in the graphs."""
        total = statistics.median(1000 * each.total() / REQUESTS for each in self._seconds)
        processes = self._processes()
        pss = sum(each.memory_full_info().pss for each in processes.values())
        return {
            "cpu_ms": round(total, 2),
            "outside_graphs_ms": round(total - in_graphs, 2),
            "wall_ms": round(statistics.median(self._walls), 2),
            f"pictures_per_second_{LANES}": round(statistics.median(self._together), 2),
            "idle_percent_of_a_core": round(100 * self._idle, 3),
            "pss_mb": round(pss / 1e6, 1),
            "processes": len(processes),
            "cpu_ms_by_process": {
                process: round(1000 * sum(e[process] for e in self._seconds) / ROUNDS / REQUESTS, 2)
                for process in processes
            },
        }

    def _picture(self, prompt: str) -> None:
        """Request one picture with plain gRPC, which servers of all versions accept.

        Raises ValueError for an error.
        """
        message = service_pb2.ModelInferRequest(model_name=self._pipeline, id=str(uuid.uuid4()))
        for name, kind, data in (
            ("prompt", "BYTES", len(prompt).to_bytes(4, "little") + prompt.encode()),
            ("steps", "INT32", self._steps.to_bytes(4, "little")),
            ("seed", "INT64", (1).to_bytes(8, "little")),
        ):
            message.inputs.add(name=name, datatype=kind, shape=[1])
            message.raw_input_contents.append(data)
        for response in self._stub.ModelStreamInfer(iter([message])):
            if response.error_message:
                raise ValueError(response.error_message)

    def _processes(self) -> dict[str, psutil.Process]:
        names = {self._triton.pid: TRITON, **models(self._triton.pid)}
        # Where the benchmark itself started this version's server, its own work would count.
        if (parent := self._triton.ppid()) != os.getpid():
            names[parent] = "stepwise serve"
        return {name: psutil.Process(process) for process, name in names.items()}

    def _cpu(self) -> Counter[str]:
        """Seconds of CPU time so far, by process."""
        found: Counter[str] = Counter()
        for name, process in self._processes().items():
            times = process.cpu_times()
            found[name] = times.user + times.system
        return found


def _prompts() -> Iterator[str]:
    """Prompts that differ in the first tokens, which small text encoders read."""
    words, chance = sorted({word for prompt in PROMPTS for word in prompt.split()}), Random(0)
    while True:
        yield " ".join(chance.choices(words, k=12))


def _own_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _listener(port: int) -> psutil.Process:
    """The process that listens on a port of this machine."""
    for each in psutil.net_connections("tcp"):
        if each.status == psutil.CONN_LISTEN and each.laddr.port == port and each.pid:
            return psutil.Process(each.pid)
    raise ValueError(f"port {port}: no process of this user listens there")
