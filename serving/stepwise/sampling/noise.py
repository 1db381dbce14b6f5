"""Reproduces the noise of torch's seeds without torch."""

from math import pi, prod
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.random.bit_generator import ISeedSequence

Float32 = npt.NDArray[np.float32]
_BLOCK = 16


class _NoEntropy(ISeedSequence):
    """Zeros for a generator that is seeded at once; numpy would gather entropy for longer."""

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> npt.NDArray[Any]:
        """A state of zeros."""
        return np.zeros(n_words, dtype)


_NO_ENTROPY = _NoEntropy()


class Generator:
    """``torch.Generator("cpu").manual_seed(seed)`` for normal float32 noise.

    The stream is torch's: an MT19937 seeded with the low 32 bits, the low 24 bits of each draw
    as a uniform number, and the Box-Muller transform in blocks of 16 (torch's
    ``aten/src/ATen/native/cpu/DistributionTemplates.h``, ``normal_fill``).
    """

    def __init__(self, seed: int) -> None:
        self._bits = np.random.MT19937(_NO_ENTROPY)  # type: ignore[arg-type]  # numpy's stub lacks the class
        self._bits._legacy_seeding(seed & 0xFFFFFFFF)

    def normal(self, shape: tuple[int, ...]) -> Float32:
        """The next draw of ``torch.randn(shape, generator=self)``, within 1e-6.

        Raises ValueError for fewer than 16 numbers, which torch draws by another method.
        """
        count = prod(shape)
        if count < _BLOCK:
            raise ValueError(f"got {count} numbers to draw; at least {_BLOCK} are needed")
        uniform = self._uniform(count)
        whole = count - count % _BLOCK
        noise = np.empty(count, np.float32)
        noise[:whole] = _box_muller(uniform[:whole])
        if whole < count:
            noise[-_BLOCK:] = _box_muller(self._uniform(_BLOCK))
        return noise.reshape(shape)

    def skip(self, shape: tuple[int, ...]) -> None:
        """Skip the numbers that ``normal(shape)`` would draw."""
        count = prod(shape)
        self._bits.random_raw(count + (_BLOCK if count % _BLOCK else 0), output=False)

    def _uniform(self, count: int) -> Float32:
        draws = self._bits.random_raw(count) & 0xFFFFFF
        uniform: Float32 = (draws * 2.0**-24).astype(np.float32)
        return uniform


def _box_muller(uniform: Float32) -> Float32:
    """Normal numbers from uniform ones in [0, 1), in blocks of 16."""
    blocks = uniform.reshape(-1, 2, _BLOCK // 2)
    radius = np.sqrt(-2 * np.log(1 - blocks[:, 0]))
    angle = np.float32(2 * pi) * blocks[:, 1]
    pairs: Float32 = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return pairs.reshape(-1)
