"""What the inputs and outputs of layers reach, from which their 8-bit levels follow."""

from collections.abc import Mapping
from dataclasses import dataclass

LEVELS = 256


@dataclass(frozen=True)
class Range:
    """What is told apart by 8 bits: ``low`` <= 0 <= ``high``, as zero must be exact for padding."""

    low: float
    high: float

    @property
    def step(self) -> float:
        """What one level is worth where zero may be any level, in the tensor's unit."""
        return (self.high - self.low) / (LEVELS - 1) or 1.0

    @property
    def zero(self) -> int:
        """The level of zero, 0 to 255."""
        return round(-self.low / self.step)

    @property
    def symmetric_step(self) -> float:
        """What one level is worth where zero is in the middle of -127 to 127."""
        return max(-self.low, self.high) / (LEVELS // 2 - 1) or 1.0


@dataclass(frozen=True)
class Activation:
    """Ranges of a layer's input and output.

    ``inputs`` are two where the layer is split: the block's channels, then the skip's.
    """

    inputs: tuple[Range, ...]
    output: Range


Activations = Mapping[str, Activation]
