"""Everything that a float graph needs to be quantized."""

from collections.abc import Sequence
from dataclasses import dataclass

from stepwise.export.errors import QuantizationError
from stepwise.export.options import FLOAT_BITS
from stepwise.export.quantize.calibration.activation_ranges import Activations
from stepwise.export.quantize.calibration.bos_token import FirstToken
from stepwise.export.quantize.layers import Layer
from stepwise.export.quantize.plan import Entry, Plan, check


@dataclass(frozen=True)
class Recipe:
    """A plan for ``layers``, with their measurements.

    ``activations`` has every layer with quantized activations. ``first`` has the outputs for the
    first token that layers with ``begins_alike`` return. ``block`` is how many inputs of 4-bit
    weights share a scale. ``recorded`` is the digest of the calibration's inputs.
    """

    layers: Sequence[Layer]
    plan: Plan
    activations: Activations
    first: FirstToken
    block: int
    recorded: str = ""

    def quantized(self) -> list[tuple[Layer, Entry]]:
        """The layers to quantize, each with its entry.

        Raises QuantizationError if the plan is for other layers, or has bits that no runtime has
        kernels for.
        """
        check(self.plan, self.layers)
        chosen = [(layer, self.plan.layers[layer.name]) for layer in self.layers]
        for layer, entry in chosen:
            _check(layer, entry)
        return [(layer, entry) for layer, entry in chosen if entry.weight_bits != FLOAT_BITS]


# Bits of weights and activations that have kernels; 4-bit weights only in linear layers.
_KERNELS = ((4, 8), (4, FLOAT_BITS), (7, 8), (8, 8), (FLOAT_BITS, FLOAT_BITS))


def _check(layer: Layer, entry: Entry) -> None:
    bits = (entry.weight_bits, entry.activation_bits)
    allowed = [pair for pair in _KERNELS if layer.is_linear or pair[0] != 4]
    if bits not in allowed:
        raise QuantizationError(
            f"the plan gives {layer.name} weights of {bits[0]} bits and activations of {bits[1]}, "
            f"which no runtime has a kernel for; allowed are "
            f"{', '.join('{} and {}'.format(*pair) for pair in allowed)}"
        )
