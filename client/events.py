"""What a request's iterator yields."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferResult


@dataclass(frozen=True)
class Event:
    """One response of the server.

    ``kind`` is "progress", "preview" or "result". ``image`` is uint8 RGB (height, width, 3): the
    picture of a result, a small picture of how it will look of a preview, None of progress alone.
    ``index`` is which picture of ``num_images``. Times are milliseconds; ``mean_batch`` is how many
    pictures shared this one's steps, on average.
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


def parse(response: Any) -> Event:
    """An event from the ensemble's response, a ``ModelInferResponse``."""
    tensor = InferResult(response).as_numpy
    image, (queued, denoising) = tensor("image"), tensor("timings_ms")
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
        image=image if image.size else None,
    )
