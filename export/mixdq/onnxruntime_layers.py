"""How ONNX Runtime computes a quantized layer fastest on a CPU.

No pattern is left for its optimizer to find: a layer is written as the kernel that it is to become.
Each function adds that kernel to a graph and returns what the layer gives, in float32. Activations
are uint8, the one type of which every integer kernel has a fast form on x86.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from export.mixdq.activations import Activation, Range
from export.mixdq.coded import Coded
from export.mixdq.patch import CONTRIB, Patch
from export.mixdq.sites import Site

_FLOAT, _HALF, _INT8, _UINT8 = (
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.INT8,
    ir.DataType.UINT8,
)
# Values of MatMulNBits' accuracy_level: float32, or int8 with a scale for each block of each row.
FLOAT_PRODUCT, INTEGER_PRODUCT = 0, 4
_CHANNELS_LAST, _CHANNELS_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


def linear(patch: Patch, site: Site, parts: Sequence[Coded], ranges: Activation) -> ir.Value:
    """A matrix product in integers, whose sums become float32 at once."""
    (part,), (ranged,) = parts, ranges.inputs
    levels = _levels(patch, site.input, ranged)
    return _product(patch, site.layer.name, levels, ranged, part, site.bias)


def pointwise(patch: Patch, site: Site, parts: Sequence[Coded], ranges: Activation) -> ir.Value:
    """A convolution of single pixels, as a matrix product of each part of its channels.

    Its output need not be rounded then, as it would in QLinearConv.
    """
    name, total = site.layer.name, None
    for number, (part, ranged, value) in enumerate(
        zip(parts, ranges.inputs, site.parts(), strict=True)
    ):
        levels = _levels(patch, value, ranged)
        turn = {"perm": _CHANNELS_LAST}
        last = patch.node(f"{name}/turned{number}", "Transpose", [levels], _UINT8, attributes=turn)
        bias = None if number else site.bias
        product = _product(patch, name, last, ranged, part, bias, suffix=str(number))
        total = patch.node(f"{name}/Add", "Add", [total, product]) if total else product
    turn = {"perm": _CHANNELS_FIRST}
    return patch.node(f"{name}/turned", "Transpose", [total], attributes=turn)


def convolution(patch: Patch, site: Site, parts: Sequence[Coded], ranges: Activation) -> ir.Value:
    """A convolution in integers, whose output is rounded to 8 bits."""
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


def four_bits(patch: Patch, site: Site, part: Coded, accuracy: int) -> ir.Value:
    """A matrix product with 4-bit weights; ``accuracy`` is MatMulNBits' own level."""
    name, (outputs, width) = site.layer.name, part.shape
    blocks = part.scales.shape[1]
    packed = (outputs, blocks, part.block // 2)
    scales = patch.constant(f"{name}/scales", part.scales.numpy().reshape(-1).astype(np.float16))
    inputs = [
        site.input,
        patch.weight(f"{name}/weight", _UINT8, packed, lambda: _pack(part.blocks())),
        # Folded when the graph is loaded: float16 is what the file holds.
        patch.node(f"{name}/Cast", "Cast", [scales], attributes={"to": _FLOAT}),
        *(None, None, site.bias),
    ]
    attributes = {
        "K": width,
        "N": outputs,
        "bits": 4,
        "block_size": part.block,
        "accuracy_level": accuracy,
    }
    return patch.node(
        f"{name}/MatMulNBits", "MatMulNBits", inputs, attributes=attributes, domain=CONTRIB
    )


def float_product(patch: Patch, site: Site, part: Coded) -> ir.Value:
    """The layer as it was, with a weight that is folded into float32 when the graph is loaded."""
    name = site.layer.name
    levels = part.initializer(patch, f"{name}/weight")
    scales = part.scales.numpy().reshape(-1, *[1] * (len(part.shape) - 1))
    scale = patch.constant(f"{name}/scales", scales.T if site.is_turned else scales)
    cast = patch.node(f"{name}/Cast", "Cast", [levels], attributes={"to": _FLOAT})
    weight = patch.node(f"{name}/Mul", "Mul", [cast, scale])
    return site.again(patch, site.input, weight, site.bias)


def _product(
    patch: Patch,
    layer: str,
    levels: ir.Value,
    ranged: Range,
    part: Coded,
    bias: ir.Value | None,
    suffix: str = "",
) -> ir.Value:
    """Levels (…, inputs) times a weight, plus a bias: (…, outputs)."""
    outputs, width = part.shape[:2]
    scale, zero = _grid(patch, ranged)
    inputs = [
        levels,
        patch.weight(
            f"{layer}/weight{suffix}",
            _INT8,
            (width, outputs),
            lambda: part.codes().reshape(outputs, width).T,
        ),
        scale,
        patch.constant(f"{layer}/scales{suffix}", part.scales.numpy().reshape(-1)),
        *(zero, None, bias),
    ]
    operator = "MatMulIntegerToFloat"
    return patch.node(f"{layer}/{operator}{suffix}", operator, inputs, domain=CONTRIB)


def _levels(patch: Patch, value: ir.Value, ranged: Range) -> ir.Value:
    """``value`` as uint8; layers that read the same in the same range share it."""
    scale, zero = _grid(patch, ranged)
    name = f"{value.name}_{scale.name}_{zero.name}"
    return patch.once(
        name, lambda: patch.node(name, "QuantizeLinear", [value, scale, zero], _UINT8)
    )


def _grid(patch: Patch, ranged: Range) -> tuple[ir.Value, ir.Value]:
    """Scale and zero of a range."""
    scale, zero = np.float32(ranged.step), np.uint8(ranged.zero)
    return patch.constant(f"float_{scale!s}", scale), patch.constant(f"uint8_{zero}", zero)


def _pack(blocks: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Codes (outputs, blocks, inputs) two to a byte, the first one low; 8 stands for zero."""
    raised = (blocks + 8).astype(np.uint8)
    return np.bitwise_or(raised[..., 0::2], raised[..., 1::2] << 4, dtype=np.uint8)
