"""Shrinks the latents of previews, and turns events and pictures into response tensors."""

import numpy as np
import numpy.typing as npt

from stepwise.description.family import Family
from stepwise.description.fields import Array
from stepwise.request.events import Event

Float32 = npt.NDArray[np.float32]
_PREVIEW_FACTORS = (4, 2, 1)
# Decoders were trained on at least this many latents per side; 2 x 2 show nothing recognizable.
_LEAST_PREVIEW_SIDE = 8
LARGEST_SHRINKING = max(_PREVIEW_FACTORS)


def shrinking(height: int, width: int) -> int:
    """The divisor of the sides of a preview's latents."""
    return next(
        n
        for n in _PREVIEW_FACTORS
        if n == 1
        or (height % n == 0 and width % n == 0 and min(height, width) >= n * _LEAST_PREVIEW_SIDE)
    )


def shrink(latents: Float32) -> Float32:
    """Latents (channels, height, width) of a preview: means of 4 x 4, 2 x 2 or 1 x 1 squares.

    The squares are the largest that divide both sides and leave 8 latents per side; 4 x 4 squares
    leave a sixteenth of the decoder's work. A video, (channels, frames, height, width), is
    previewed by its first frame.
    """
    if latents.ndim == 4:
        return shrink(latents[:, 0])[:, None]
    channels, height, width = latents.shape
    factor = shrinking(height, width)
    squares = latents.reshape(channels, height // factor, factor, width // factor, factor)
    means: Float32 = squares.mean(axis=(2, 4), dtype=np.float32)
    return means


def response(family: Family, event: Event, shown: Array | None) -> dict[str, Array]:
    """One response by tensor name.

    ``shown`` is a picture, uint8 (height, width, 3), frames of a video, uint8 (frames, height,
    width, 3), or None if the response is only progress.
    """
    kind = family.response[0]
    nothing = np.zeros((*[0] * (len(kind.dims) - 1), 3), np.uint8)
    return {
        kind.name: nothing if shown is None else shown,
        "kind": np.asarray([event.kind.encode()], np.object_),
        "index": np.asarray([event.index], np.int32),
        "step": np.asarray([event.step], np.int32),
        "total_steps": np.asarray([event.steps], np.int32),
        "used_seed": np.asarray([event.seed], np.int64),
        "timings_ms": np.asarray([event.queued_ms, event.denoising_ms], np.float32),
        "mean_batch": np.asarray([event.mean_batch], np.float32),
        "notes": np.asarray([note.encode() for note in event.notes], np.object_),
    }
