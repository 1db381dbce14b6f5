"""What a causal video autoencoder has seen of a video, carried from one slice to the next.

Each of its convolutions looks at the last frames before a slice. They are inputs of the graph,
``cache_0``, ``cache_1`` and so on in the order of the convolutions, and outputs, ``next_cache_0``
and so on, from which the next slice goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stepwise.description.fields import Array
from stepwise.description.spec import Component, Tensor


@dataclass(frozen=True)
class Cache:
    """The frames that one convolution looks back at; ``scale`` multiplies the sides of latents."""

    channels: int
    frames: int
    scale: int

    def empty(self, height: int, width: int) -> Array:
        """What it is given with the first slice, which does not look at it.

        Float32 (1, channels, frames, height, width) for latents of these sides.
        """
        sides = (self.scale * height, self.scale * width)
        return np.zeros((1, self.channels, self.frames, *sides), np.float32)

    def tensor(self, name: str) -> Tensor:
        """How it appears in a graph."""
        times = f"{self.scale}*" if self.scale > 1 else ""
        sides = tuple(f"{times}{axis}" for axis in ("height", "width"))
        return Tensor(name, "FP32", (1, self.channels, self.frames, *sides))


def input_name(index: int) -> str:
    """What the graph calls a cache that goes in."""
    return f"cache_{index}"


def output_name(index: int) -> str:
    """What the graph calls a cache that comes out."""
    return f"next_cache_{index}"


def with_caches(component: Component, caches: Sequence[Cache]) -> Component:
    """A part of a video autoencoder with the caches that a checkpoint's has."""
    numbered = list(enumerate(caches))
    return replace(
        component,
        inputs=(*component.inputs, *(c.tensor(input_name(i)) for i, c in numbered)),
        outputs=(*component.outputs, *(c.tensor(output_name(i)) for i, c in numbered)),
    )
