"""Inserts the first token's known output into a quantized layer's output for a text (section 3.1).

Only rows of a batch that begin with the known first token get it: the negative prompt may be zeros,
and a request may use an earlier layer of CLIP.
"""

import numpy as np
import onnx_ir as ir

from stepwise.export.quantize.calibration.bos_token import FirstToken
from stepwise.export.quantize.graphs.graph_editor import Patch

_BOOL, _INT64 = ir.DataType.BOOL, ir.DataType.INT64


def join(patch: Patch, layer: str, text: ir.Value, output: ir.Value, first: FirstToken) -> ir.Value:
    """``output`` (batch, tokens, outputs) with the known output for the first token."""
    mask = patch.once(f"{text.name}_begins", lambda: _mask(patch, text, first))
    known = patch.constant(f"{layer}/first", first.outputs[layer][None, None])
    return patch.node(f"{layer}/Where", "Where", [mask, known, output])


def _mask(patch: Patch, text: ir.Value, first: FirstToken) -> ir.Value:
    """A mask (batch, tokens, 1) of the known first token in ``text`` (batch, tokens, width)."""

    def number(value: int) -> ir.Value:
        return patch.constant(f"int64_{value}", np.int64(value))

    def vector(*values: int) -> ir.Value:
        name = "int64s_" + "_".join(map(str, values))
        return patch.constant(name, np.array(values, np.int64))

    known = patch.constant(f"{text.name}_first", first.embedding[None, None])
    margin = patch.constant(f"{text.name}_margin", np.float32(first.margin))
    beginning = patch.node("first/Slice", "Slice", [text, vector(0), vector(1), vector(1)])
    difference = patch.node("first/Sub", "Sub", [beginning, known])
    distance = patch.node("first/Abs", "Abs", [difference])
    greatest = patch.node("first/ReduceMax", "ReduceMax", [distance, vector(-1)])
    alike = patch.node("first/LessOrEqual", "LessOrEqual", [greatest, margin], _BOOL)
    shape = patch.node("first/Shape", "Shape", [text], _INT64)
    tokens = patch.node("first/Gather", "Gather", [shape, number(1)], _INT64)
    places = patch.node("first/Range", "Range", [number(0), tokens, number(1)], _INT64)
    column = patch.node("first/Unsqueeze", "Unsqueeze", [places, vector(0, 2)], _INT64)
    begins = patch.node("first/Equal", "Equal", [column, number(0)], _BOOL)
    return patch.node("first/And", "And", [alike, begins], _BOOL)
