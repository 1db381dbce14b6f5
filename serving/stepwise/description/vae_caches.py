"""The caches that carry a causal video autoencoder's state from one slice to the next.

Each of its convolutions reads the last frames before a slice. The graph takes them as the inputs
``cache_0``, ``cache_1`` and so on, in the order of the convolutions, and returns the caches for the
next slice as the outputs ``next_cache_0`` and so on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stepwise.description.fields import Array
from stepwise.description.spec import Component, Tensor


@dataclass(frozen=True)
class Cache:
    """The past frames that one convolution reads, with sides ``scale`` times those of latents."""

    channels: int
    frames: int
    scale: int

    def empty(self, height: int, width: int) -> Array:
        """The placeholder for the first slice, which ignores it.

        For latents with these sides: zeros, float32 (1, channels, frames, scale * height,
        scale * width).
        """
        sides = (self.scale * height, self.scale * width)
        return np.zeros((1, self.channels, self.frames, *sides), np.float32)

    def tensor(self, name: str) -> Tensor:
        """The cache as a tensor of the graph."""
        times = f"{self.scale}*" if self.scale > 1 else ""
        sides = tuple(f"{times}{axis}" for axis in ("height", "width"))
        return Tensor(name, "FP32", (1, self.channels, self.frames, *sides))


def input_name(index: int) -> str:
    """The name of a cache as an input of the graph."""
    return f"cache_{index}"


def output_name(index: int) -> str:
    """The name of a cache as an output of the graph."""
    return f"next_cache_{index}"


def with_caches(component: Component, caches: Sequence[Cache]) -> Component:
    """A video autoencoder's component with a checkpoint's caches as inputs and outputs."""
    numbered = list(enumerate(caches))
    return replace(
        component,
        inputs=(*component.inputs, *(c.tensor(input_name(i)) for i, c in numbered)),
        outputs=(*component.outputs, *(c.tensor(output_name(i)) for i, c in numbered)),
    )
