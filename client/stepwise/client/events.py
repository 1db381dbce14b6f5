"""What a request's iterator yields."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferResult


@dataclass(frozen=True)
class Event:
    """One response of the server.

    ``kind`` is "progress", "preview" or "result". ``image`` is uint8 RGB (height, width, 3): the
    picture of a result, a small picture of how it will look of a preview, None of progress alone
    and of videos. ``frames`` is uint8 RGB (frames, height, width, 3): of a result, one slice of a
    video, whose results come in order; of a preview, its first frame, small; None of progress alone
    and of pictures. ``index`` is the picture of ``num_images``, or the first frame of a video's
    slice. Times are milliseconds; ``mean_batch`` is how many pictures or videos shared
    this one's steps, on average.
    """

    kind: str
    index: int
    step: int
    steps: int
    seed: int
    queued_ms: float
    denoising_ms: float
    mean_batch: float
    notes: tuple[str, ...]
    image: npt.NDArray[np.uint8] | None
    frames: npt.NDArray[np.uint8] | None = None

    @property
    def shown(self) -> npt.NDArray[np.uint8] | None:
        """What there is to look at: the picture, or the first of the frames; None of progress."""
        return self.image if self.frames is None else self.frames[0]

    @property
    def asked_seed(self) -> int:
        """The seed of the whole request, of which each further picture adds one to it."""
        return self.seed if self.frames is not None else self.seed - self.index


def parse(response: Any) -> Event:
    """An event from the ensemble's response, a ``ModelInferResponse``."""
    tensor = InferResult(response).as_numpy
    image, frames, (queued, denoising) = tensor("image"), tensor("video"), tensor("timings_ms")
    return Event(
        kind=tensor("kind")[0].decode(),
        index=int(tensor("index")[0]),
        step=int(tensor("step")[0]),
        steps=int(tensor("total_steps")[0]),
        seed=int(tensor("used_seed")[0]),
        queued_ms=float(queued),
        denoising_ms=float(denoising),
        mean_batch=float(tensor("mean_batch")[0]),
        notes=tuple(note.decode() for note in tensor("notes")),
        image=_unless_empty(image),
        frames=_unless_empty(frames),
    )


def whole(slices: Sequence[Event]) -> Event:
    """One event with all frames of a video, out of its results in order, of which there is one."""
    frames = [event.frames for event in slices if event.frames is not None]
    return replace(slices[-1], index=0, frames=np.concatenate(frames))


def _unless_empty(values: npt.NDArray[np.uint8] | None) -> npt.NDArray[np.uint8] | None:
    return values if values is not None and values.size else None
