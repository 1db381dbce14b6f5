"""What a UNet is asked to be quantized to; ``export/mixdq`` does it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

# What a layer that is left as it is has for bits.
FLOAT_BITS = 16
PROMPTS = Path(__file__).parent / "quantize" / "prompts.txt"
# The plan that was followed, beside the graph.
PLAN = "plan.json"


@dataclass(frozen=True)
class Budget:
    """A named limit: the mean bits of linear layers where convolutions have 8, and a margin.

    What is over lets the layers that quantizing hurts most have more. ``bits`` are those that a
    weight may have: of w8a8, all that is not left as it is has 8-bit activations, too.
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
    """What a UNet's layers are to have for bits, and the prompts that it is calibrated with.

    Either a ``plan`` file says it, or a ``budget``, a name of BUDGETS or a number of bytes, within
    which the best plan is looked for. ``protected`` are names, in which ``*`` is any text, of
    layers that are left as they are.
    """

    prompts: Path
    budget: str = ""
    plan: Path | None = None
    protected: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of all that was asked for, the contents of files included."""
        total = hashlib.sha256(repr((self.budget, self.protected)).encode())
        for path in (self.prompts, *filter(None, [self.plan])):
            total.update(hashlib.sha256(path.read_bytes()).digest())
        return total.hexdigest()
