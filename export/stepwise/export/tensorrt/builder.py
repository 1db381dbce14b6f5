"""Builds an engine from an ONNX graph with TensorRT or TensorRT for RTX: one builder interface."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwise.export.errors import EngineError
from stepwise.export.onnx.shapes import Shape
from stepwise.export.tensorrt import builder_log
from stepwise.export.tensorrt.builder_log import Kernel
from stepwise.export.tensorrt.libraries import LIBRARIES, load
from stepwise.export.tensorrt.profiles import Profiles, covering

# Layers by their type and the datatype of their first output.
Layers = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Built:
    """A serialized engine, the shapes of its inputs and outputs (-1 where dynamic), its kernels."""

    plan: memoryview
    shapes: Mapping[str, Shape]
    kernels: tuple[Kernel, ...]
    seconds: float

    @property
    def layers(self) -> Layers:
        """The number of kernels of each type and datatype."""
        counts: dict[str, Counter[str]] = {}
        for kernel in self.kernels:
            counts.setdefault(kernel.kind, Counter())[kernel.datatype] += 1
        return {kind: dict(counter) for kind, counter in sorted(counts.items())}


def build(name: str, graph: Path, profiles: Sequence[Profiles], capability: str) -> Built:
    """Build a strongly typed engine: every layer has the type that the graph gives it.

    All ``profiles`` share the engine's weights; axes that have one size in all of them are fixed.
    Raises EngineError with the library's message.
    """
    trt, start = load(name), time.monotonic()
    log = _log(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph)):
        raise EngineError(f"{graph} cannot be read by {name}: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        tensor.shape = covering(profiles, tensor.name)
    for profile in profiles:
        config.add_optimization_profile(_profile(builder, profile))
    if LIBRARIES[name].any_gpu:
        config.num_compute_capabilities = 1
        config.set_compute_capability(_enumerated(trt, name, capability), 0)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"{name} cannot build {graph}: {'; '.join(log.errors[-2:])}")
    kernels = tuple(builder_log.read(log.lines))
    return Built(memoryview(plan), _shapes(network), kernels, time.monotonic() - start)


def _log(trt: Any) -> Any:
    """A logger that records a builder's messages."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            self.lines.append(message)
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)

    return Log()


def _profile(builder: Any, shapes: Profiles) -> Any:
    built = builder.create_optimization_profile()
    for name, profile in shapes.items():
        built.set_shape(name, profile.minimum, profile.usual, profile.maximum)
    return built


def _enumerated(trt: Any, name: str, capability: str) -> Any:
    known = {key: value for key, value in vars(trt.ComputeCapability).items() if key[:2] == "SM"}
    key = f"SM{capability.replace('.', '')}"
    if key not in known:
        allowed = ", ".join(
            f"{key[2:-1]}.{key[-1]}" for key in sorted(known, key=lambda key: int(key[2:]))
        )
        raise EngineError(
            f"{name} {trt.__version__} does not build for compute capability {capability}; "
            f"allowed are {allowed}"
        )
    return known[key]


def _shapes(network: Any) -> dict[str, Shape]:
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    tensors += [network.get_output(index) for index in range(network.num_outputs)]
    return {tensor.name: tuple(tensor.shape) for tensor in tensors}
