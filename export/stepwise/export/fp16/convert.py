"""Converts float32 graphs to compute in float16 wherever float16 holds the values.

Inputs and outputs keep their types. Weights are converted one at a time while they are written, so
a graph with its weights in a separate file may be larger than memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from stepwise.export.errors import PrecisionError
from stepwise.export.families.base import Keep
from stepwise.export.onnx.exporter import save
from stepwise.export.onnx.initializers import casts_weight, drop_unused, widen
from stepwise.export.onnx.module_names import stays

LARGEST = float(np.finfo(np.float16).max)
_HALF, _SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT
# They only move values, which keep their type.
_MOVES = {
    *("Expand", "Flatten", "Gather", "GatherND", "Identity", "Reshape", "Shape", "Slice"),
    *("Split", "Squeeze", "Transpose", "Unsqueeze"),
}
# ONNX fixes the type of these operators' further inputs.
_FIRST_INPUT_ONLY = {"Resize"}


def write_half(source: Path, keep: Keep, folder: Path) -> Path:
    """Convert the graph at ``source`` to float16 and write it as ``model.onnx`` into ``folder``.

    Raises PrecisionError for a weight that float16 cannot hold and that is not kept in float32.
    """
    model = ir.load(source)
    widen(model.graph)
    convert(model.graph, keep)
    path = save(model, folder)
    onnx.checker.check_model(str(path), full_check=True)
    return path


def convert(graph: ir.Graph, keep: Keep) -> None:
    """Convert a float32 graph in place; raises PrecisionError as ``write_half`` does."""
    casts = _Casts(graph, keep)
    for node in list(graph):
        _convert(node, casts)
    for index in range(len(graph.outputs)):
        casts.restore(index)
    drop_unused(graph)


def half_values(graph: ir.Graph, keep: Keep) -> Iterator[ir.Value]:
    """The values of a float32 graph that its converted graph computes in float16."""
    for node in graph:
        if node.op_type in _MOVES or casts_weight(node):
            continue
        if _floats(node) and not stays(node, keep):
            yield from (value for value in node.outputs if value.dtype == _SINGLE)


def _floats(node: ir.Node) -> list[int]:
    """The indices of a node's float inputs."""
    count = 1 if node.op_type in _FIRST_INPUT_ONLY else len(node.inputs)
    found = [value is not None and value.dtype in (_SINGLE, _HALF) for value in node.inputs]
    return [place for place in range(count) if found[place]]


def _convert(node: ir.Node, casts: "_Casts") -> None:
    places = _floats(node)
    if not places:
        return
    wanted = _wanted(node, casts.keep)
    for place in places:
        value = node.inputs[place]
        assert value is not None
        node.replace_input_with(place, casts.get(value, wanted, node))
    for output in node.outputs:
        if output.dtype == _SINGLE:
            output.dtype = wanted


def _wanted(node: ir.Node, keep: Keep) -> ir.DataType:
    """The type that a node computes in."""
    first = node.inputs[0]
    if node.op_type in _MOVES and first is not None and not first.is_initializer():
        assert first.dtype is not None
        return first.dtype
    return _SINGLE if stays(node, keep) else _HALF


@dataclass
class _Casts:
    """The casts and converted weights of a graph; each value is cast once."""

    graph: ir.Graph
    keep: Keep
    made: dict[str, ir.Value] = field(default_factory=dict)

    def get(self, value: ir.Value, wanted: ir.DataType, before: ir.Node) -> ir.Value:
        """``value`` as ``wanted``: itself, a converted weight, or a cast put before a node."""
        if value.dtype == wanted:
            return value
        name = f"{value.name}_{wanted.name.lower()}"
        if name not in self.made:
            if value.const_value is not None:
                self.made[name] = self._weight(value.const_value, name)
            else:
                self.made[name] = self._cast(value, wanted, name, before)
        return self.made[name]

    def restore(self, index: int) -> None:
        """Cast an output of the graph back to float32 if it has become float16."""
        value = self.graph.outputs[index]
        if value.dtype != _HALF:
            return
        name, value.name = value.name, f"{value.name}_float16"
        producer = value.producer()
        assert producer is not None
        assert name is not None
        cast = ir.node("Cast", [value], {"to": _SINGLE})
        cast.outputs[0].name, cast.outputs[0].shape = name, value.shape
        cast.outputs[0].dtype = _SINGLE
        self.graph.insert_after(producer, cast)
        self.graph.outputs[index] = cast.outputs[0]

    def _weight(self, tensor: ir.TensorProtocol, name: str) -> ir.Value:
        _check_weight(tensor, self.keep)
        shape = ir.Shape(tensor.shape.numpy())
        half = ir.LazyTensor(partial(_half, tensor), dtype=_HALF, shape=shape, name=name)
        value = ir.Value(name=name, shape=shape, type=ir.TensorType(_HALF))
        value.const_value = half
        self.graph.register_initializer(value)
        return value

    def _cast(self, value: ir.Value, wanted: ir.DataType, name: str, before: ir.Node) -> ir.Value:
        cast = ir.node("Cast", [value], {"to": wanted})
        cast.outputs[0].name, cast.outputs[0].shape = name, value.shape
        cast.outputs[0].dtype = wanted
        self.graph.insert_before(before, cast)
        return cast.outputs[0]


def _check_weight(tensor: ir.TensorProtocol, keep: Keep) -> None:
    values = tensor.numpy()
    finite = np.where(np.isfinite(values), np.abs(values), 0)
    if finite.size and finite.max() > LARGEST:
        raise PrecisionError(
            f"{keep.component}: its weight {tensor.name} holds {finite.max():.3g} where float16 "
            f"ends at {LARGEST:g}; add its module to keep_in_fp32 of its family in "
            "stepwise.export or export with --precision fp32"
        )


def _half(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """A weight in float16; values that are too small for it become zero."""
    return ir.Tensor(tensor.numpy().astype(np.float16), name=tensor.name)
