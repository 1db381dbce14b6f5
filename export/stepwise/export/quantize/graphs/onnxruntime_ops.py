"""Writes quantized layers as the kernels that are fastest in ONNX Runtime on a CPU.

A layer is written directly as its kernel, so the optimizer has no pattern to find. Each function
adds that kernel to a graph and returns the layer's output, in float32. Activations are uint8, the
only type for which every integer kernel has a fast form on x86.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from stepwise.export.quantize.calibration.activation_ranges import Activation, Range
from stepwise.export.quantize.graphs.graph_editor import CONTRIB, Patch
from stepwise.export.quantize.graphs.layer_nodes import Site
from stepwise.export.quantize.graphs.packed_weights import Coded

_FLOAT, _UINT8 = ir.DataType.FLOAT, ir.DataType.UINT8
_INT8 = ir.DataType.INT8
_CHANNELS_LAST, _CHANNELS_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


def linear(patch: Patch, site: Site, parts: Sequence[Coded], ranges: Activation) -> ir.Value:
    """A matrix product in integers with sums that become float32 at once."""
    (part,), (ranged,) = parts, ranges.inputs
    levels = _levels(patch, site.input, ranged)
    return _product(patch, site.layer.name, levels, ranged, part, site.bias)


def pointwise(patch: Patch, site: Site, parts: Sequence[Coded], ranges: Activation) -> ir.Value:
    """A 1 x 1 convolution, as a matrix product of each part of its channels.

    Its output is not rounded, as it would be in QLinearConv.
    """
    name, total = site.layer.name, None
    for number, (part, ranged, value) in enumerate(
        zip(parts, ranges.inputs, site.parts(), strict=True)
    ):
        levels = _levels(patch, value, ranged)
        transposed = {"perm": _CHANNELS_LAST}
        last = patch.node(
            f"{name}/turned{number}", "Transpose", [levels], _UINT8, attributes=transposed
        )
        bias = None if number else site.bias
        product = _product(patch, name, last, ranged, part, bias, suffix=str(number))
        total = patch.node(f"{name}/Add", "Add", [total, product]) if total else product
    transposed = {"perm": _CHANNELS_FIRST}
    return patch.node(f"{name}/turned", "Transpose", [total], attributes=transposed)


def convolution(patch: Patch, site: Site, parts: Sequence[Coded], ranges: Activation) -> ir.Value:
    """A convolution in integers with its output rounded to 8 bits."""
    (part,), (ranged,), name = parts, ranges.inputs, site.layer.name
    levels = _levels(patch, site.input, ranged)
    scales = part.scales.numpy().reshape(-1)
    inputs = [
        levels,
        *_grid(patch, ranged),
        part.initializer(patch, f"{name}/weight"),
        patch.constant(f"{name}/scales", scales),
        patch.constant("int8_0", np.int8(0)),
        *_grid(patch, ranges.output),
    ]
    if (bias := site.read_bias()) is not None:
        rounded = np.round(bias / (scales * np.float32(ranged.step)))
        limits = np.iinfo(np.int32)
        integers = np.clip(rounded, limits.min, limits.max).astype(np.int32)
        inputs.append(patch.constant(f"{name}/bias", integers))
    kernel = "QLinearConv"
    output = patch.node(f"{name}/{kernel}", kernel, inputs, _UINT8, attributes=site.attributes)
    outputs = [output, *_grid(patch, ranges.output)]
    return patch.node(f"{name}/DequantizeLinear", "DequantizeLinear", outputs)


def four_bits(patch: Patch, site: Site, parts: Sequence[Coded]) -> ir.Value:
    """A matrix product in float32 with weights that stay at 4 bits in memory."""
    (part,), name = parts, site.layer.name
    outputs, width = part.shape
    packed = (outputs, width // part.block, part.block // 2)
    inputs = [
        site.input,
        patch.weight(f"{name}/weight", _UINT8, packed, lambda: _pack(part.blocks())),
        _halves(patch, name, part.scales.numpy()),
        *(None, None, site.bias),
    ]
    attributes = {"K": width, "N": outputs, "bits": 4, "block_size": part.block}
    kernel = "MatMulNBits"
    return patch.node(f"{name}/{kernel}", kernel, inputs, attributes=attributes, domain=CONTRIB)


def _product(
    patch: Patch,
    name: str,
    levels: ir.Value,
    ranged: Range,
    part: Coded,
    bias: ir.Value | None,
    suffix: str = "",
) -> ir.Value:
    """Levels (…, inputs) times a weight, plus a bias: (…, outputs)."""
    scale, zero = _grid(patch, ranged)
    weight, scales = (_widened if part.bits == 4 else _stored)(patch, name, suffix, part)
    inputs = [levels, weight, scale, scales, *(zero, None, bias)]
    kernel = "MatMulIntegerToFloat"
    return patch.node(f"{name}/{kernel}{suffix}", kernel, inputs, domain=CONTRIB)


def _stored(patch: Patch, name: str, suffix: str, part: Coded) -> tuple[ir.Value, ir.Value]:
    """An 8-bit weight (inputs, outputs) and its scales (outputs,)."""
    outputs, width = part.shape[:2]
    shape = (width, outputs)
    codes = patch.weight(
        f"{name}/weight{suffix}", _INT8, shape, lambda: part.codes().reshape(outputs, width).T
    )
    return codes, patch.constant(f"{name}/scales{suffix}", part.scales.numpy().reshape(-1))


def _widened(patch: Patch, name: str, _suffix: str, part: Coded) -> tuple[ir.Value, ir.Value]:
    """A 4-bit weight as 8 bits (inputs, outputs), and scales (outputs,).

    ONNX Runtime folds these nodes when it loads the graph: a file of 4 bits computes as fast as one
    of 8. It keeps each node's output until all are folded, so none has more than a byte for each
    weight. ONNX Runtime 1.19, that of Triton 24.10, has no kernel that reads INT4.
    """
    outputs, width = part.shape
    blocks = outputs * width // part.block
    packed = patch.weight(
        f"{name}/weight", _UINT8, (1, blocks, part.block // 2), lambda: _pack_halves(part.blocks())
    )
    scales = part.scales.numpy().reshape(outputs, -1)
    greatest = scales.max(axis=1, keepdims=True)

    def then(
        operator: str, *inputs: ir.Value, dtype: ir.DataType = _UINT8, **given: Any
    ) -> ir.Value:
        return patch.node(f"{name}/{operator}", operator, inputs, dtype, attributes=given)

    low = then("BitwiseAnd", packed, patch.constant("uint8_15", np.uint8(15)))
    high = then("BitShift", packed, patch.constant("uint8_4", np.uint8(4)), direction="RIGHT")
    raised = then("Cast", then("Concat", low, high, axis=2), dtype=_INT8, to=_INT8)
    # A convolution with one weight per block scales it. The greatest code of a block is 7, and that
    # of the block with the greatest scale becomes 127.
    ones = then(
        "Expand", patch.constant("int8_1", np.int8(1)), _shape(patch, blocks, 1, 1), dtype=_INT8
    )
    zero = patch.constant("int8_0", np.int8(0))
    grid = [patch.constant("float_1", np.float32(1)), patch.constant("int8_8", np.int8(8))]
    shares = _halves(patch, name, scales / greatest)
    given = [patch.constant("float_7_127", np.float32(7 / 127)), zero]
    wide = then("QLinearConv", raised, *grid, ones, shares, zero, *given, dtype=_INT8, group=blocks)
    rows = then("Reshape", wide, _shape(patch, outputs, width), dtype=_INT8)
    steps = patch.constant(f"{name}/scales", (greatest * np.float32(7 / 127)).reshape(-1))
    return then("Transpose", rows, dtype=_INT8, perm=[1, 0]), steps


def _halves(patch: Patch, name: str, scales: npt.NDArray[np.float32]) -> ir.Value:
    """The scales of 4-bit weights in one row, stored as float16."""
    stored = patch.constant(f"{name}/block_scales", scales.reshape(-1).astype(np.float16))
    return patch.node(f"{name}/Widen", "Cast", [stored], attributes={"to": _FLOAT})


def _shape(patch: Patch, *sides: int) -> ir.Value:
    name = "int64s_" + "_".join(map(str, sides))
    return patch.constant(name, np.array(sides))


def _levels(patch: Patch, value: ir.Value, ranged: Range) -> ir.Value:
    """``value`` as uint8; layers that read the same value in the same range share it."""
    scale, zero = _grid(patch, ranged)
    name = f"{value.name}_{scale.name}_{zero.name}"
    return patch.once(
        name, lambda: patch.node(name, "QuantizeLinear", [value, scale, zero], _UINT8)
    )


def _grid(patch: Patch, ranged: Range) -> tuple[ir.Value, ir.Value]:
    """The scale and the zero of a range."""
    scale, zero = np.float32(ranged.step), np.uint8(ranged.zero)
    return patch.constant(f"float_{scale!s}", scale), patch.constant(f"uint8_{zero}", zero)


def _pack(blocks: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Codes (outputs, blocks, inputs) two to a byte, the first one low; 8 stands for zero."""
    raised = (blocks + 8).astype(np.uint8)
    return np.bitwise_or(raised[..., 0::2], raised[..., 1::2] << 4, dtype=np.uint8)


def _pack_halves(blocks: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Codes as (1, outputs x blocks, half of their inputs): the first half low; 8 is zero."""
    rows = (blocks + 8).astype(np.uint8).reshape(1, -1, blocks.shape[-1])
    half = rows.shape[-1] // 2
    return np.bitwise_or(rows[..., :half], rows[..., half:] << 4, dtype=np.uint8)
