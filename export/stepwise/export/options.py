"""Options of quantization: named budgets, plans and prompts."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

# The bits of a layer that is not quantized.
FLOAT_BITS = 16
PROMPTS = Path(__file__).parent / "quantize" / "prompts.txt"
# The file of a quantized graph's plan, next to the graph.
PLAN = "plan.json"


@dataclass(frozen=True)
class Budget:
    """A named limit on the bytes of a UNet's weights.

    The limit is their size with a mean of ``linear_bits`` in linear layers and 8 bits in
    convolutions, times ``margin``. The margin gives more bits to the layers that quantization hurts
    most. ``bits`` are those that a weight may have; under w8a8 all quantized layers have 8-bit
    activations, too.
    """

    linear_bits: int
    margin: float
    bits: frozenset[int]


BUDGETS = {
    "w8a8": Budget(8, 1.015, frozenset({8, FLOAT_BITS})),
    "w5a8": Budget(5, 1.015, frozenset({4, 8, FLOAT_BITS})),
    "w4a8": Budget(4, 1.03, frozenset({4, 8, FLOAT_BITS})),
}


@dataclass(frozen=True)
class Quantization:
    """The bits of a UNet's layers, and the prompts to calibrate with.

    Either a ``plan`` file lists the bits, or the search finds the best plan within ``budget``, a
    name of BUDGETS or a number of bytes. Layers that match a name in ``protected`` are not
    quantized; ``*`` matches any text.
    """

    prompts: Path
    budget: str = ""
    plan: Path | None = None
    protected: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of all options, including the contents of files."""
        total = hashlib.sha256(repr((self.budget, self.protected)).encode())
        for path in (self.prompts, *filter(None, [self.plan])):
            total.update(hashlib.sha256(path.read_bytes()).digest())
        return total.hexdigest()
