"""What each runtime can compute, and what it takes there in bytes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod

from export.errors import QuantizationError
from export.mixdq.fake import Rounding
from export.mixdq.layers import Layer
from export.mixdq.plan import FLOAT_BITS

# Inputs of a linear layer that share a scale of 4 bits.
BLOCK = 64


@dataclass(frozen=True)
class Runtime:
    """The arithmetic that a runtime has kernels for.

    ``linear`` and ``convolution`` are the bits of activations by those of weights; ``scale_bytes``
    is what a scale of 4-bit weights takes.
    """

    rounding: Rounding
    linear: Mapping[int, int]
    convolution: Mapping[int, int]
    scale_bytes: int

    def bits(self, layer: Layer) -> Mapping[int, int]:
        """The bits that a layer's weights can have, each with those of its activations."""
        return self.linear if layer.is_linear else self.convolution

    def size(self, layer: Layer, bits: int) -> int:
        """Bytes of a layer's weights and scales; those that are left as they are have 16 bits."""
        outputs, inputs = layer.shape[0], prod(layer.shape[1:])
        if bits == FLOAT_BITS:
            return 2 * outputs * inputs
        if bits == 8:
            return outputs * (inputs + 4 * (1 + (layer.split is not None)))
        blocks = ceil(inputs / self.rounding.block)
        return outputs * blocks * (self.rounding.block // 2 + self.scale_bytes)


# 4-bit weights are multiplied with activations that are not quantized beforehand (W4A16).
_BITS = {4: 16, 8: 8, 16: 16}
_WITHOUT_4 = {8: 8, 16: 16}
RUNTIMES = {
    # QLinearConv rounds what it gives, too.
    "onnxruntime": Runtime(Rounding(False, BLOCK, True), _BITS, _WITHOUT_4, 4),
    "tensorrt": Runtime(Rounding(True, BLOCK, False), _BITS, _WITHOUT_4, 2),
}


@dataclass(frozen=True)
class Limit:
    """Bytes that all weights together may take, and the bits that each may have."""

    size: int
    bits: frozenset[int]


@dataclass(frozen=True)
class Budget:
    """A named limit: the mean bits of linear layers where convolutions have 8, and a margin.

    What is over lets the layers that quantizing hurts most have more. ``bits`` are those that a
    weight may have: of w8a8, all that is not left as it is has 8-bit activations, too.
    """

    linear_bits: int
    margin: float
    bits: frozenset[int]


_EVERY = frozenset({4, 8, FLOAT_BITS})
BUDGETS = {
    "w8a8": Budget(8, 1.015, frozenset({8, FLOAT_BITS})),
    "w5a8": Budget(5, 1.015, _EVERY),
    "w4a8": Budget(4, 1.03, _EVERY),
}


def limit(text: str, layers: Sequence[Layer], runtime: Runtime) -> Limit:
    """What a name of BUDGETS, or a whole number of bytes, allows the weights of ``layers``.

    Raises QuantizationError for anything else.
    """
    if text in BUDGETS:
        budget = BUDGETS[text]
        share = (budget.linear_bits - 4) / 4
        large, small = (_size(layers, runtime, bits) for bits in (8, 4))
        return Limit(round(budget.margin * (share * large + (1 - share) * small)), budget.bits)
    if not text.isdecimal() or int(text) < 1:
        raise QuantizationError(
            f"got the budget {text!r}; allowed are {', '.join(BUDGETS)}, or how many bytes the "
            "UNet's weights may take"
        )
    return Limit(int(text), _EVERY)


def _size(layers: Iterable[Layer], runtime: Runtime, linear_bits: int) -> int:
    return sum(runtime.size(layer, linear_bits if layer.is_linear else 8) for layer in layers)
