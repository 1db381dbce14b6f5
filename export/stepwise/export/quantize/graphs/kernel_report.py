"""Reports the kernel and the arithmetic of each layer, so that no fallback to float goes unnoticed.

ONNX Runtime's come from the profile of a run, TensorRT's from its builder's log.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy.typing as npt
import onnxruntime

from stepwise.export.options import FLOAT_BITS
from stepwise.export.quantize.plan import Entry, Plan
from stepwise.export.tensorrt.builder_log import Kernel

FLOAT = "float"
_INT8 = "W8A8: int8 by int8"
_INT8_FROM_4 = "W4A8: int4 in the file, int8 by int8 once it is loaded"
_INT4 = "W4A16: int4 widened to float inside the kernel"

# The expected arithmetic by the bits of weights and activations.
_ONNXRUNTIME = {(8, 8): _INT8, (7, 8): _INT8, (4, 8): _INT8_FROM_4, (4, FLOAT_BITS): _INT4}
# TensorRT multiplies 4-bit weights only by float16.
_TENSORRT = {(8, 8): _INT8, (7, 8): _INT8, (4, 8): _INT4, (4, FLOAT_BITS): _INT4}
# ONNX Runtime's kernels, with the arithmetics that they compute.
_KERNELS = {
    "QLinearConv": (_INT8,),
    "MatMulIntegerToFloat": (_INT8, _INT8_FROM_4),
    "MatMulNBits": (_INT4,),
}
_PRODUCTS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Computed:
    """A layer's planned and actual arithmetic, and the names of its kernels."""

    layer: str
    planned: str
    arithmetic: str
    names: tuple[str, ...]


def share(kernels: Iterable[Computed]) -> float:
    """The share of the layers to quantize that are quantized as planned, from 0 to 1."""
    right = [found.arithmetic == found.planned for found in kernels if found.planned != FLOAT]
    return sum(right) / max(len(right), 1)


def table(kernels: Sequence[Computed]) -> str:
    """A line for each arithmetic with its kernels, then one for each layer not as planned."""
    counts = Counter(
        (found.arithmetic, " and ".join(found.names) or "its own") for found in kernels
    )
    lines = [f"{count:5}  {arithmetic} ({names})" for (arithmetic, names), count in counts.items()]
    lines += [
        f"{found.layer}: {found.arithmetic}, where {found.planned} was planned"
        for found in kernels
        if found.arithmetic != found.planned
    ]
    return "\n".join(lines)


def onnxruntime_kernels(
    graph: Path, plan: Plan, feed: Mapping[str, npt.NDArray[Any]]
) -> list[Computed]:
    """Run a graph of ``onnxruntime_graph`` once; return the kernels of each layer of its plan."""
    ran: defaultdict[str, set[str]] = defaultdict(set)
    for name, operator in _executed(graph, feed):
        layer, _, _ = name.rpartition("/")
        ran[layer].add(operator)
    return [_ran(layer, entry, ran[layer]) for layer, entry in plan.layers.items()]


def _ran(layer: str, entry: Entry, operators: set[str]) -> Computed:
    planned = _due(entry, _ONNXRUNTIME)
    names = tuple(sorted(operators & _KERNELS.keys()))
    # A weight that is widened in every run shows up as an additional kernel.
    done = names and all(planned in _KERNELS[name] for name in names)
    return Computed(layer, planned, planned if done else FLOAT, names)


def _executed(graph: Path, feed: Mapping[str, npt.NDArray[Any]]) -> list[tuple[str, str]]:
    """Name and operator of every node that ran, once ONNX Runtime had optimized the graph."""
    with TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text())
    return [
        (event["name"], event["args"]["op_name"])
        for event in events
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time")
    ]


def tensorrt_kernels(kernels: Iterable[Kernel], plan: Plan) -> list[Computed]:
    """The kernels that an engine of ``tensorrt_graph`` has for each layer of its plan."""
    built: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for kernel in kernels:
        for node in kernel.nodes:
            name, _, product = node.rpartition("/")
            # The second half of a split layer has a number.
            if product.rstrip("1") in _PRODUCTS and (arithmetic := _arithmetic(kernel)):
                built[name].add((arithmetic, kernel.kind))
    return [_built(layer, entry, built[layer]) for layer, entry in plan.layers.items()]


def _built(layer: str, entry: Entry, found: set[tuple[str, str]]) -> Computed:
    done = {arithmetic for arithmetic, _ in found}
    names = tuple(sorted(kind for _, kind in found))
    return Computed(layer, _due(entry, _TENSORRT), done.pop() if len(done) == 1 else FLOAT, names)


def _arithmetic(kernel: Kernel) -> str | None:
    """The arithmetic of an engine's layer that multiplies a quantized weight; None for others."""
    types = (*kernel.inputs[:1], *kernel.constants[:1])
    return _INT8 if types == ("Int8", "Int8") else _INT4 if types == ("Half", "Int4") else None


def _due(entry: Entry, arithmetics: Mapping[tuple[int, int], str]) -> str:
    bits = (entry.weight_bits, entry.activation_bits)
    return FLOAT if entry.weight_bits == FLOAT_BITS else arithmetics[bits]
