"""All that a float graph needs to become a quantized one."""

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
    """A plan for ``layers``, with what was measured of them.

    ``activations`` are those of every layer whose activations are quantized, ``first`` is joined
    to what those layers give that begin alike. ``block`` is how many inputs of 4-bit weights share
    a scale. ``recorded`` is the digest of what decided the activations.
    """

    layers: Sequence[Layer]
    plan: Plan
    activations: Activations
    first: FirstToken
    block: int
    recorded: str = ""

    def quantized(self) -> list[tuple[Layer, Entry]]:
        """The layers that are not left as they are.

        Raises QuantizationError if the plan is for other layers, or asks for what no runtime has
        kernels for.
        """
        check(self.plan, self.layers)
        chosen = [(layer, self.plan.layers[layer.name]) for layer in self.layers]
        for layer, entry in chosen:
            _check(layer, entry)
        return [(layer, entry) for layer, entry in chosen if entry.weight_bits != FLOAT_BITS]


# Bits of weights and activations that there are kernels for; 4 are for linear layers alone.
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
