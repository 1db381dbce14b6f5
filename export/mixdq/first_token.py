"""The first token of a text, which is the same for every prompt (section 3.1)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
# Largest difference between prompts, relative to the largest value: what float16 encoders round.
TOLERANCE = 2e-3


@dataclass(frozen=True)
class FirstToken:
    """The first token's ``embedding`` (width,), and what layers make of it, (outputs,) by name.

    A row of a batch whose first token is another one, such as the zeros of an absent negative
    prompt or an earlier layer of CLIP, is not what ``outputs`` are for.
    """

    embedding: Float32
    outputs: Mapping[str, Float32]

    @property
    def margin(self) -> float:
        """How far a first token may be from ``embedding`` to be the same, in any value."""
        return TOLERANCE * float(np.abs(self.embedding).max())
