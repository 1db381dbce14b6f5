"""Runs a causal video autoencoder slice by slice and tile by tile.

A slice is one latent frame. The first slice is one video frame, every other slice four. Frames with
a side longer than a tile are split into overlapping tiles, each with its own caches. Seams are
blended as in diffusers' AutoencoderKLMagvit.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from stepwise.description.fields import Array
from stepwise.description.manifest import VideoLayout
from stepwise.description.vae_caches import Cache, input_name, output_name

Float32 = npt.NDArray[np.float32]
# Maps a component's inputs to its outputs by name; caches may be any objects that it returned.
Run = Callable[[Mapping[str, Any]], Mapping[str, Any]]
_LATENTS, _LEVELS, _FIRST = "latents", "levels", "first"


@dataclass
class _Tile:
    """A region of all frames, in latents, with the caches of its previous slice."""

    rows: slice
    columns: slice
    caches: dict[str, Any] = field(default_factory=dict)

    def run(self, run: Run, given: Mapping[str, Array], caches: tuple[Cache, ...]) -> Any:
        """The component's outputs for the next slice; the first slice starts without caches."""
        first = np.asarray([not self.caches], np.int32)
        if not self.caches:
            height, width = (part.stop - part.start for part in (self.rows, self.columns))
            empty = (cache.empty(height, width) for cache in caches)
            self.caches = {input_name(i): value for i, value in enumerate(empty)}
        outputs = run({**given, _FIRST: first, **self.caches})
        self.caches = {input_name(i): outputs[output_name(i)] for i in range(len(caches))}
        return outputs


def decode(run: Run, latents: Float32, layout: VideoLayout) -> Iterator[tuple[int, Array]]:
    """Decode latents (channels, frames, height, width) slice by slice.

    Yields the index of a slice's first frame and the frames, uint8 (frames, height, width, 3).
    ``run`` is the decoder. Memory use does not depend on the number of frames.
    """
    grid = _grid(latents.shape[2:], layout)
    extent, stride = layout.tile - layout.tile_stride, layout.tile_stride
    index = 0
    for place in range(latents.shape[1]):
        decoded = [
            [_decode_tile(run, tile, latents[:, place : place + 1], layout) for tile in row]
            for row in grid
        ]
        levels = _joined(decoded, extent, stride)
        frames = as_frames(levels if place else levels[:, -1:])
        yield index, frames
        index += len(frames)


def _decode_tile(run: Run, tile: _Tile, latents: Float32, layout: VideoLayout) -> Float32:
    part = latents[None, :, :, tile.rows, tile.columns]
    levels: Float32 = tile.run(run, {_LATENTS: part}, layout.decoder_caches)[_LEVELS][0]
    return levels


def as_frames(levels: Float32) -> Array:
    """Convert levels (3, frames, height, width), clipped to [-1, 1], to uint8 (frames, height,
    width, 3), rounded as in diffusers' VaeImageProcessor.
    """
    scaled = np.clip(levels * np.float32(0.5) + np.float32(0.5), 0, 1) * np.float32(255)
    frames: Array = np.round(scaled).astype(np.uint8).transpose(1, 2, 3, 0)
    return frames


def encode(run: Run, slices: Iterator[Float32], layout: VideoLayout) -> Float32:
    """Encode a video slice by slice to latents (channels, frames, height, width).

    ``slices`` are levels (3, frames, height, width) in [-1, 1], with one frame, then four each.
    ``run`` is the encoder.
    """
    grid: list[list[_Tile]] = []
    latents, scale = [], layout.scale
    extent, stride = layout.tile - layout.tile_stride, layout.tile_stride
    for levels in slices:
        grid = grid or _grid(tuple(side // scale for side in levels.shape[2:]), layout)
        whole = np.repeat(levels, layout.frames // levels.shape[1], axis=1)
        encoded = [[_encode_tile(run, tile, whole, layout) for tile in row] for row in grid]
        latents.append(_joined(encoded, extent // scale, stride // scale))
    return np.concatenate(latents, axis=1)


def _encode_tile(run: Run, tile: _Tile, levels: Float32, layout: VideoLayout) -> Float32:
    rows, columns = (
        slice(layout.scale * part.start, layout.scale * part.stop)
        for part in (tile.rows, tile.columns)
    )
    part = levels[None, :, :, rows, columns]
    latents: Float32 = tile.run(run, {_LEVELS: part}, layout.encoder_caches)[_LATENTS][0]
    return latents


def _grid(sides: tuple[int, ...], layout: VideoLayout) -> list[list[_Tile]]:
    """The tiles of latent frames with these sides: one if the frames fit in a tile."""
    size, stride = layout.tile // layout.scale, layout.tile_stride // layout.scale
    if max(sides) <= size:
        size = stride = max(sides)
    rows, columns = (
        [slice(start, min(start + size, side)) for start in range(0, side, stride)]
        for side in sides
    )
    return [[_Tile(row, column) for column in columns] for row in rows]


def _joined(tiles: list[list[Float32]], extent: int, stride: int) -> Float32:
    """Join tiles: blend each with those above and to the left, cut it to the stride."""
    if len(tiles) == len(tiles[0]) == 1:
        return tiles[0][0]
    for y, row in enumerate(tiles):
        for x, tile in enumerate(row):
            if y > 0:
                tile = _blended(tiles[y - 1][x], tile, extent, axis=2)
            if x > 0:
                tile = _blended(row[x - 1], tile, extent, axis=3)
            row[x] = tile
    cut = [[tile[:, :, :stride, :stride] for tile in row] for row in tiles]
    return np.concatenate([np.concatenate(row, axis=3) for row in cut], axis=2)


def _blended(before: Float32, tile: Float32, extent: int, axis: int) -> Float32:
    """Blend the first ``extent`` rows or columns of ``tile`` with the last ones of ``before``."""
    count = min(before.shape[axis], tile.shape[axis], extent)
    ramp = np.arange(count, dtype=np.float32) / np.float32(count)
    weight = ramp.reshape([-1 if i == axis else 1 for i in range(tile.ndim)])
    ends = np.take(before, range(before.shape[axis] - count, before.shape[axis]), axis)
    starts, rest = np.split(tile, [count], axis)
    return np.concatenate([ends * (1 - weight) + starts * weight, rest], axis)
