"""Measures the CPU time of a request outside of its graphs, by process."""

import resource
import statistics
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
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
# Seconds without requests in which the idle server is measured.
_IDLE_SECONDS = 20
Seconds = Mapping[str, float]


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
    """Milliseconds of CPU per request, served and in its graphs alone, in turns.

    Every prompt is new to the server, so that each request runs its text encoders. ``other`` is
    the gRPC port of another version's server on this machine, to compare with.
    """
    graphs = _Graphs(server.settings.repository, name)
    ports = {"this": server.settings.ports.grpc, **({"other": other} if other else {})}
    tritons = {version: _listener(port) for version, port in ports.items()}
    clients = {version: _Caller(port) for version, port in ports.items()}
    idle = {version: _idle(process) for version, process in tritons.items()}
    alone: list[float] = []
    rounds: dict[str, list[Seconds]] = {version: [] for version in ports}
    walls: dict[str, list[float]] = {version: [] for version in ports}
    prompts = _prompts()
    for number in range(ROUNDS + 1):
        for version, client in clients.items():
            before, began = _cpu(tritons[version]), time.monotonic()
            for _ in range(REQUESTS):
                client.picture(name, next(prompts), steps)
            wall = time.monotonic() - began
            if number:
                rounds[version].append(_cpu(tritons[version]) - before)
                walls[version].append(1000 * wall / REQUESTS)
        graphs.seconds = 0.0
        for _ in range(REQUESTS):
            graphs.generate(next(prompts), steps=steps, seed=1)
        if number:
            alone.append(1000 * graphs.seconds / REQUESTS)
    in_graphs = statistics.median(alone)
    figures: dict[str, Any] = {"requests": ROUNDS * REQUESTS, "steps": steps}
    figures["in_graphs_ms"] = round(in_graphs, 2)
    for version, counted in rounds.items():
        total = statistics.median(1000 * sum(each.values()) / REQUESTS for each in counted)
        figures[version] = {
            "cpu_ms": round(total, 2),
            "outside_graphs_ms": round(total - in_graphs, 2),
            "wall_ms": round(statistics.median(walls[version]), 2),
            "by_process_ms": {
                process: round(
                    statistics.median(1000 * each[process] / REQUESTS for each in counted), 2
                )
                for process in counted[0]
            },
            "idle_percent_of_a_core": round(100 * idle[version], 3),
            "pss_mb": round(_pss(tritons[version]) / 1e6),
            "processes": len(_processes(tritons[version])),
        }
        print(version, figures[version], flush=True)
    if other:
        outside = (figures[version]["outside_graphs_ms"] for version in ("this", "other"))
        this, that = outside
        figures["outside_graphs_ratio"] = round(this / that, 3)
        print("graphs", in_graphs, "ratio", figures["outside_graphs_ratio"])
    return figures


class _Caller:
    """Requests pictures with plain gRPC messages, which servers of all versions accept."""

    def __init__(self, port: int) -> None:
        self._stub = GRPCInferenceServiceStub(grpc.insecure_channel(f"localhost:{port}"))

    def picture(self, pipeline: str, prompt: str, steps: int) -> None:
        """Request one picture and read the stream to its end. Raises ValueError for an error."""
        message = service_pb2.ModelInferRequest(model_name=pipeline, id=str(uuid.uuid4()))
        text = len(prompt).to_bytes(4, "little") + prompt.encode()
        for name, kind, data in (
            ("prompt", "BYTES", text),
            ("steps", "INT32", steps.to_bytes(4, "little")),
            ("seed", "INT64", (1).to_bytes(8, "little")),
        ):
            message.inputs.add(name=name, datatype=kind, shape=[1])
            message.raw_input_contents.append(data)
        for response in self._stub.ModelStreamInfer(iter([message])):
            if response.error_message:
                raise ValueError(response.error_message)


def _prompts() -> Iterator[str]:
    number = 0
    while True:
        yield f"{PROMPTS[number % len(PROMPTS)]} number {number}"
        number += 1


def _own_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _listener(port: int) -> psutil.Process:
    """The process that listens on a port of this machine."""
    for each in psutil.net_connections("tcp"):
        if each.status == psutil.CONN_LISTEN and each.laddr.port == port and each.pid:
            return psutil.Process(each.pid)
    raise ValueError(f"port {port}: no process of this user listens there")


def _processes(triton: psutil.Process) -> dict[str, psutil.Process]:
    names = {triton.pid: TRITON, **models(triton.pid)}
    return {name: psutil.Process(process) for process, name in names.items()}


def _cpu(triton: psutil.Process) -> Counter[str]:
    """Seconds of CPU time so far, by process."""
    found: Counter[str] = Counter()
    for name, process in _processes(triton).items():
        times = process.cpu_times()
        found[name] = times.user + times.system
    return found


def _idle(triton: psutil.Process) -> float:
    """The share of a core that a server takes without requests."""
    before = sum(_cpu(triton).values())
    time.sleep(_IDLE_SECONDS)
    return (sum(_cpu(triton).values()) - before) / _IDLE_SECONDS


def _pss(triton: psutil.Process) -> float:
    """Bytes of memory, shared pages divided among their users."""
    return sum(each.memory_full_info().pss for each in _processes(triton).values())
