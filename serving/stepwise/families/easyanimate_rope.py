"""Rotary tables: the positions of a video's patches for EasyAnimate's transformer."""

import numpy as np

from stepwise.description.fields import Array

_THETA = 10_000.0
# Positions of any video size are scaled to this grid of latents: 480 x 720 pixels.
_BASE = (60, 90)

Float32 = np.float32


def tables(latent_shape: tuple[int, ...], patch: int, head_dim: int) -> tuple[Array, Array]:
    """Cosines and sines for latents (channels, frames, height, width), each (patches, head_dim).

    A quarter of each head encodes the frame, three eighths the row and three eighths the column of
    a patch (arXiv 2104.09864 in three dimensions). Rows and columns count in units of the base
    grid; a video with another aspect ratio is centred in it. Follows EasyAnimateRotaryPosEmbed in
    diffusers, which also computes in float32.
    """
    frames, height, width = latent_shape[1], latent_shape[2] // patch, latent_shape[3] // patch
    rows, columns = _grid(height, width, patch)
    eighths = head_dim // 8 * 3
    angles = np.concatenate(
        [
            _spread(_angles(np.arange(frames, dtype=Float32), head_dim // 4), 0, height, width),
            _spread(_angles(rows, eighths), 1, frames, width),
            _spread(_angles(columns, eighths), 2, frames, height),
        ],
        axis=-1,
    ).reshape(frames * height * width, -1)
    return np.cos(angles), np.sin(angles)


def _grid(height: int, width: int, patch: int) -> tuple[Array, Array]:
    """Positions of the rows and of the columns."""
    base_height, base_width = (side // patch for side in _BASE)
    if height / width > base_height / base_width:
        sides = base_height, round(base_height / height * width)
    else:
        sides = round(base_width / width * height), base_width
    positions = []
    for count, base, side in zip((height, width), (base_height, base_width), sides, strict=True):
        first = round((base - side) / 2)
        positions.append(
            np.linspace(first, (first + side) * (count - 1) / count, count, dtype=Float32)
        )
    return positions[0], positions[1]


def _angles(positions: Array, dim: int) -> Array:
    """Angles (positions, dim), with each frequency twice."""
    powers = np.arange(0, dim, 2, dtype=Float32) / Float32(dim)
    frequencies = Float32(1) / np.power(Float32(_THETA), powers)
    return np.repeat(np.outer(positions, frequencies), 2, axis=1)


def _spread(angles: Array, axis: int, *others: int) -> Array:
    """Broadcast the angles of one axis to every patch, (frames, height, width, dim)."""
    shape = list(others)
    shape.insert(axis, len(angles))
    along = [1, 1, 1]
    along[axis] = len(angles)
    return np.broadcast_to(angles.reshape(*along, -1), (*shape, angles.shape[1]))
