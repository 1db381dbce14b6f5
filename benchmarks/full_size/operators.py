"""Compares two ONNX operator sets in the runtimes, on a denoiser of full width with few layers.

Set 23 has operators for attention, GELU and group normalization; set 18 composes them from smaller
operators.
"""

import statistics
import time
from collections import Counter
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from benchmarks.full_size.apart import Figures, apart
from benchmarks.full_size.component import CAPABILITY, LIBRARY, Array
from miniatures import full
from stepwise.description.graph_files import GRAPH
from stepwise.description.spec import Component
from stepwise.export.families import family_export
from stepwise.export.fp16.convert import write_half
from stepwise.export.modules.architectures import ARCHITECTURES
from stepwise.export.modules.exportable import Exportable
from stepwise.export.onnx.exporter import filled, save, write_trace
from stepwise.export.tensorrt.builder import build
from stepwise.export.tensorrt.profiles import Profile
from stepwise.families import FAMILIES

SETS = (18, 23)
LEVELS = {
    "off": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
# The class of a family's denoiser, and a config small enough for repeated measurements.
FEW_LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sd3": ("SD3Transformer2DModel", {"num_layers": 3}),
    "sdxl": (
        "UNet2DConditionModel",
        {"layers_per_block": 1, "transformer_layers_per_block": [1, 1, 2]},
    ),
}
_ROUNDS = 5
_SIZES = {"batch": 2, "height": 32, "width": 32}
_TRACED = {"batch": 2, "height": 24, "width": 32, "text": 24}
_SIDE = 128
# The builder's names of its fused kernels.
_CODES = {"attention": "mha", "group_normalization": "Gnor"}


def measure(family: str) -> Figures:
    """Nodes, times and kernels by operator set; times in milliseconds on one thread."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for opset in SETS:
            apart(_write, family, opset, folder)
        figures = {str(opset): apart(_builder, family, folder / str(opset)) for opset in SETS}
        times = apart(_runtime, family, folder)
    return {"tensorrt": figures, "onnxruntime": times}


def _component(family: str) -> Component:
    return FAMILIES[family].denoiser


def _module(family: str) -> Exportable:
    name, few = FEW_LAYERS[family]
    architecture = ARCHITECTURES[name]
    torch.manual_seed(0)
    config = full.config(family, _component(family).subfolder)
    model = architecture.model.from_config({**config, **few})
    return architecture.exported(model, _component(family)).eval()


def _write(family: str, opset: int, folder: Path) -> Figures:
    module, component = _module(family), _component(family)
    for kind in ("fp32", "fp16"):
        (folder / str(opset) / kind).mkdir(parents=True)
    trace = folder / f"{opset}.onnx"
    write_trace(module, component, _TRACED, trace, opset)
    graph = save(filled(trace, module), folder / str(opset) / "fp32")
    write_half(graph, family_export(family).keep(component.name), folder / str(opset) / "fp16")
    return {}


def _text(family: str) -> int:
    return FAMILIES[family].ranges["text"].usual


def _builder(family: str, folder: Path) -> Figures:
    """The number of TensorRT's kernels for a float16 graph, and how many are fused."""
    sizes = {**_SIZES, "height": _SIDE, "width": _SIDE, "text": _text(family)}
    shapes = _shapes(folder / "fp16" / GRAPH, sizes)
    profile = {name: Profile(shape, shape, shape) for name, shape in shapes.items()}
    built = build(LIBRARY, folder / "fp16" / GRAPH, [profile], CAPABILITY)
    fused = {
        name: sum(code in kernel.code for kernel in built.kernels) for name, code in _CODES.items()
    }
    return {"kernels": len(built.kernels), **fused, "bytes": len(built.plan)}


def _shapes(graph: Path, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    inputs = onnx.load(str(graph), load_external_data=False).graph.input
    return {
        value.name: tuple(
            sizes[dim.dim_param] if dim.dim_param else dim.dim_value
            for dim in value.type.tensor_type.shape.dim
        )
        for value in inputs
    }


def _runtime(family: str, folder: Path) -> Figures:
    """Median times by operator set and optimization level, measured in turns."""
    cases = list(product(SETS, LEVELS))
    sessions = [_session(folder / str(opset) / "fp32", level) for opset, level in cases]
    generator = np.random.default_rng(0)
    shapes = _shapes(folder / str(SETS[0]) / "fp32" / GRAPH, {**_SIZES, "text": _text(family)})
    feed = {n: generator.standard_normal(shape, np.float32) for n, shape in shapes.items()}
    times = [[_milliseconds(session, feed) for session in sessions] for _ in range(_ROUNDS)]
    return {
        f"{opset} {level}": {"ms": statistics.median(spent), "nodes": _nodes(folder, opset, level)}
        for (opset, level), spent in zip(cases, zip(*times, strict=True), strict=True)
    }


def _session(folder: Path, level: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = LEVELS[level]
    options.optimized_model_filepath = str(folder / f"{level}.onnx")
    return onnxruntime.InferenceSession(folder / GRAPH, options)


def _milliseconds(session: onnxruntime.InferenceSession, feed: Mapping[str, Array]) -> float:
    start = time.perf_counter()
    session.run(None, feed)
    return round(1000 * (time.perf_counter() - start), 1)


def _nodes(folder: Path, opset: int, level: str) -> dict[str, int]:
    """The number of nodes after optimization, in all and of the most common types."""
    path = folder / str(opset) / "fp32" / f"{level}.onnx"
    nodes = onnx.load(str(path), load_external_data=False).graph.node
    kinds = Counter(node.op_type for node in nodes)
    return {"all": len(nodes), **dict(kinds.most_common(8))}
