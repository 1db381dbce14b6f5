"""The events that a request's iterator yields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferResult

from stepwise.client.errors import OutputError


@dataclass(frozen=True)
class Event:
    """One response of the server.

    ``kind`` is "progress", "preview" or "result".

    ``image`` is uint8 RGB (height, width, 3): a result's picture, or a preview's small picture.
    None for progress and for videos. ``frames`` is uint8 RGB (frames, height, width, 3): a result's
    slice of the video, sent in order, or a preview's small first frame. None for progress and for
    pictures. ``index`` counts the pictures of ``num_images``; for videos it is the slice's first
    frame. Times are in milliseconds. ``mean_batch`` is the mean number of pictures or videos in the
    batches of this one's steps. ``request`` holds the pipeline, the prompt and all settings.
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
    request: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def shown(self) -> npt.NDArray[np.uint8] | None:
        """The picture, or the first of the frames; None for progress."""
        return self.image if self.frames is None else self.frames[0]

    @property
    def asked_seed(self) -> int:
        """The request's seed. Each further picture of a request uses the next seed."""
        return self.seed if self.frames is not None else self.seed - self.index

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write a picture as PNG, or a whole video as MP4, GIF or WebP, by the suffix of ``path``.

        The file holds the request, for ``stepwise repeat``. Raises InvalidRequest for an event that
        is no result, a slice of a video or another suffix; OutputError if the file exists (without
        ``force``) or cannot be written, or if the libraries for it are not installed.
        """
        try:
            from stepwise.client.media import result
        except ModuleNotFoundError as error:
            raise OutputError(
                f"{path}: saving needs {error.name}: pip install 'stepwise-client[cli]'"
            ) from error
        result.save(self, Path(path), force=force)


def parse(response: Any) -> Event:
    """The event in a pipeline's response, a ``ModelInferResponse``."""
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
    """One event with all frames of a video, from its results in order (at least one)."""
    frames = [event.frames for event in slices if event.frames is not None]
    return replace(slices[-1], index=0, frames=np.concatenate(frames))


def _unless_empty(values: npt.NDArray[np.uint8] | None) -> npt.NDArray[np.uint8] | None:
    return values if values is not None and values.size else None
