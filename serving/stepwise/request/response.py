"""Latents to what the decoder is given; events and decoded pictures to response tensors."""

import numpy as np
import numpy.typing as npt

from stepwise.description.family import Family
from stepwise.description.fields import Array
from stepwise.request.events import Event

Float32 = npt.NDArray[np.float32]
_PREVIEW_FACTORS = (4, 2, 1)
# Decoders have seen no fewer latents than this on a side; from 2 x 2 they make nothing to look at.
_LEAST_PREVIEW_SIDE = 8
LARGEST_SHRINKING = max(_PREVIEW_FACTORS)


def shrinking(height: int, width: int) -> int:
    """By how much the sides of a preview's latents are divided."""
    return next(
        n
        for n in _PREVIEW_FACTORS
        if n == 1
        or (height % n == 0 and width % n == 0 and min(height, width) >= n * _LEAST_PREVIEW_SIDE)
    )


def shrink(latents: Float32) -> Float32:
    """Latents (channels, height, width) of a preview: means of squares of 4, 2 or 1 a side.

    The largest that divides both sides and leaves 8 of them; with 4 the decoder has a sixteenth
    of the work. The preview of a video, (channels, frames, height, width), is of its first frame.
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

    ``shown`` is a picture, uint8 (height, width, 3), or frames of a video, uint8 (frames, height,
    width, 3); None when the response is progress alone.
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
