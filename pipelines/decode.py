"""Events and decoded pictures in, response tensors out."""

import numpy as np

from pipelines.events import Event
from pipelines.settings import Array
from pipelines.spec import Pipeline

_EMPTY = np.zeros((0, 0, 3), np.uint8)


def response(pipeline: Pipeline, event: Event, pictures: Array | None) -> dict[str, Array]:
    """One response by tensor name.

    ``pictures`` is what the decoder graph answered, uint8 (1, height, width, 3), or None when the
    response is progress alone.
    """
    kind = pipeline.response[0].name
    return {
        kind: _EMPTY if pictures is None else pictures[0],
        "kind": np.asarray([event.kind.encode()], np.object_),
        "index": np.asarray([event.index], np.int32),
        "step": np.asarray([event.step], np.int32),
        "total_steps": np.asarray([event.steps], np.int32),
        "used_seed": np.asarray([event.seed], np.int64),
        "timings_ms": np.asarray([event.queued_ms, event.denoising_ms], np.float32),
        "mean_batch": np.asarray([event.mean_batch], np.float32),
        "notes": np.asarray([note.encode() for note in event.notes], np.object_),
    }
