"""All that a float graph needs to become a quantized one."""

from collections.abc import Sequence
from dataclasses import dataclass

from export.errors import QuantizationError
from export.mixdq.activations import Activations
from export.mixdq.first_token import FirstToken
from export.mixdq.layers import Layer
from export.mixdq.plan import FLOAT_BITS, Entry, Plan, check


@dataclass(frozen=True)
class Recipe:
    """A plan for ``layers``, with what was measured of them.

    ``activations`` are those of every layer whose activations are quantized, ``first`` is joined
    to what those layers give that begin alike. ``block`` is how many inputs of 4-bit weights share
    a scale.
    """

    layers: Sequence[Layer]
    plan: Plan
    activations: Activations
    first: FirstToken
    block: int

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


def _check(layer: Layer, entry: Entry) -> None:
    if entry.weight_bits == 4 and not layer.is_linear:
        raise QuantizationError(
            f"the plan gives {layer.name} 4-bit weights, which no runtime has a kernel for in a "
            "convolution; give it 8 or 16"
        )
    if entry.weight_bits == FLOAT_BITS and entry.activation_bits != FLOAT_BITS:
        raise QuantizationError(
            f"the plan gives {layer.name} {entry.activation_bits}-bit activations with "
            f"{FLOAT_BITS}-bit weights, which no runtime has a kernel for; give its weights 8 bits "
            f"or its activations {FLOAT_BITS}"
        )
