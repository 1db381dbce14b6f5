"""Checks that float16 holds the values of a graph, measured on the float32 graph."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx_ir as ir

from stepwise.export.errors import PrecisionError
from stepwise.export.families.base import Keep
from stepwise.export.fp16.convert import LARGEST, half_values
from stepwise.export.onnx.module_names import module_of
from stepwise.export.onnx.ort import Feed, open_session

# Below it float16 loses digits; a tensor with all values below it becomes noise.
SMALLEST = float(np.finfo(np.float16).smallest_normal)
_PROBE = "ranges.onnx"


def check_ranges(graph: Path, keep: Keep, feeds: Iterable[Feed]) -> None:
    """Raise PrecisionError if a value that is not kept leaves float16's range on ``feeds``.

    The graph itself reduces every value to its greatest magnitude, so memory stays that of an
    ordinary run. The message names the node that is furthest out of range, and a remedy.
    """
    producers, greatest = measure(graph, keep, feeds)
    worst = max(greatest, key=greatest.__getitem__, default=None)
    if worst is not None and not greatest[worst] <= LARGEST:
        raise PrecisionError(
            f"{_where(keep.component, producers[worst])} reaches {greatest[worst]:.3g} where "
            f"float16 ends at {LARGEST:g}; {_REMEDY}"
        )
    for name, value in greatest.items():
        if 0 < value < SMALLEST:
            raise PrecisionError(
                f"{_where(keep.component, producers[name])} stays below {value:.3g} where float16 "
                f"begins at {SMALLEST:.3g}; {_REMEDY}"
            )


_REMEDY = (
    "add its module to keep_in_fp32 of its family in stepwise.export or export with "
    "--precision fp32"
)


def _where(component: str, node: ir.Node) -> str:
    return f"{component}: {node.name} ({node.op_type} in {module_of(node) or 'the outer module'})"


def measure(
    graph: Path, keep: Keep, feeds: Iterable[Feed]
) -> tuple[dict[str, ir.Node], dict[str, float]]:
    """Each value that becomes float16: the node that computes it, and its greatest magnitude."""
    model = ir.load(graph)
    values = list(half_values(model.graph, keep))
    producers = {str(v.name): node for v in values if (node := v.producer()) is not None}
    outputs = [_magnitude(model.graph, value) for value in values]
    # Next to the graph, where ONNX Runtime looks for its weights.
    probe = graph.with_name(_PROBE)
    try:
        ir.save(model, probe)
        session = open_session(probe)
    finally:
        probe.unlink(missing_ok=True)
    runs = [session.run(outputs, feed) for feed in feeds] if outputs else []
    greatest = np.max(np.asarray(runs, np.float64), axis=0, initial=0.0) if runs else []
    return producers, dict(zip(producers, map(float, greatest), strict=True))


def _magnitude(graph: ir.Graph, value: ir.Value) -> str:
    """Add an output to ``graph`` with the greatest magnitude in ``value``."""
    name = f"{value.name}_magnitude"
    magnitude = ir.node("Abs", [value])
    greatest = ir.node("ReduceMax", magnitude.outputs, {"keepdims": 0})
    greatest.outputs[0].name = name
    greatest.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    greatest.outputs[0].shape = ir.Shape([])
    producer = value.producer()
    assert producer is not None
    # Right after the value, so that it can be freed at once.
    graph.insert_after(producer, [magnitude, greatest])
    graph.outputs.append(greatest.outputs[0])
    return name
