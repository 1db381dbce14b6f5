"""The bits that each runtime has kernels for, and the bytes that they take."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from stepwise.export.errors import QuantizationError
from stepwise.export.options import BUDGETS, FLOAT_BITS
from stepwise.export.quantize.layers import Layer
from stepwise.export.quantize.search.fake_quant import Rounding
from stepwise.export.quantize.search.weight_rounding import block_of

# Inputs of a linear layer that share a scale of 4-bit weights.
BLOCK = 64
# The smallest block that kernels support.
_LEAST_BLOCK = 16


@dataclass(frozen=True)
class Runtime:
    """The arithmetic that a runtime has kernels for.

    ``linear`` and ``convolution`` map the bits of weights to those of activations.
    """

    rounding: Rounding
    linear: Mapping[int, int]
    convolution: Mapping[int, int]

    def bits(self, layer: Layer) -> Mapping[int, int]:
        """The bits that a layer's weights can have, each with the bits of its activations."""
        if not layer.is_linear:
            return self.convolution
        fits = block_of(layer.shape[1], self.rounding.block) >= _LEAST_BLOCK
        return {bits: due for bits, due in self.linear.items() if bits != 4 or fits}

    def size(self, layer: Layer, bits: int) -> int:
        """Bytes of a layer's weights and scales; weights that are not quantized have 16 bits.

        A scale is a float32 for 8 bits, a float16 for 4.
        """
        outputs, inputs = layer.shape[0], prod(layer.shape[1:])
        if bits == FLOAT_BITS:
            return 2 * outputs * inputs
        if bits == 8:
            return outputs * (inputs + 4 * (1 + (layer.split is not None)))
        return outputs * (inputs // 2 + 2 * inputs // block_of(inputs, self.rounding.block))


_CONVOLUTION = {8: 8, 16: 16}
RUNTIMES = {
    # QLinearConv also rounds its output; 4-bit weights are widened to 8 when they are loaded.
    "onnxruntime": Runtime(Rounding(False, BLOCK, True), {4: 8, 8: 8, 16: 16}, _CONVOLUTION),
    # 4-bit weights are multiplied by activations that are not quantized (W4A16).
    "tensorrt": Runtime(Rounding(True, BLOCK, False), {4: 16, 8: 8, 16: 16}, _CONVOLUTION),
}


@dataclass(frozen=True)
class Limit:
    """Bytes that all weights together may take, and the bits that each may have."""

    size: int
    bits: frozenset[int]


_EVERY = frozenset({4, 8, FLOAT_BITS})


def limit(text: str, layers: Sequence[Layer], runtime: Runtime) -> Limit:
    """The limit for the weights of ``layers``, by a name of BUDGETS or a whole number of bytes.

    Raises QuantizationError for anything else.
    """
    if text in BUDGETS:
        budget = BUDGETS[text]
        share = (budget.linear_bits - 4) / 4
        large, small = (_size(layers, runtime, bits) for bits in (8, 4))
        return Limit(round(budget.margin * (share * large + (1 - share) * small)), budget.bits)
    if not text.isdecimal() or int(text) < 1:
        raise QuantizationError(
            f"got the budget {text!r}; allowed are {', '.join(BUDGETS)}, or the number of bytes "
            "that the UNet's weights may take"
        )
    return Limit(int(text), _EVERY)


def _size(layers: Iterable[Layer], runtime: Runtime, linear_bits: int) -> int:
    return sum(runtime.size(layer, linear_bits if layer.is_linear else 8) for layer in layers)
