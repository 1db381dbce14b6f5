import numpy as np
import pytest
from tritonclient.grpc import service_pb2
from tritonclient.utils import serialize_byte_tensor

from stepwise.client.events import parse, whole

TYPES = {"uint8": "UINT8", "int32": "INT32", "int64": "INT64", "float32": "FP32", "object": "BYTES"}


def response(kind, index, **outputs):
    """A ``ModelInferResponse`` with ``outputs`` and the tensors of every response."""
    tensors = {
        **outputs,
        "kind": np.asarray([kind.encode()], np.object_),
        "index": np.asarray([index], np.int32),
        "step": np.asarray([4], np.int32),
        "total_steps": np.asarray([4], np.int32),
        "used_seed": np.asarray([7], np.int64),
        "timings_ms": np.asarray([1.5, 2.5], np.float32),
        "mean_batch": np.ones(1, np.float32),
        "notes": np.asarray([], np.object_),
    }
    made = service_pb2.ModelInferResponse()
    for name, values in tensors.items():
        made.outputs.add(name=name, datatype=TYPES[str(values.dtype)], shape=values.shape)
        texts = values.dtype == np.object_ and values.size
        raw = serialize_byte_tensor(values).item() if texts else values.tobytes()
        made.raw_output_contents.append(raw)
    return made


def test_a_picture_has_an_image_and_a_slice_of_a_video_has_frames():
    image = np.full((2, 3, 3), 9, np.uint8)
    event = parse(response("result", 2, image=image))
    assert np.array_equal(event.image, image)
    assert np.array_equal(event.shown, image)
    assert (event.frames, event.seed, event.asked_seed) == (None, 7, 5)
    frames = np.arange(4 * 18, dtype=np.uint8).reshape(4, 2, 3, 3)
    event = parse(response("result", 1, video=frames))
    assert np.array_equal(event.frames, frames)
    assert np.array_equal(event.shown, frames[0])
    assert (event.image, event.seed, event.asked_seed) == (None, 7, 7)


@pytest.mark.parametrize("empty", [{"image": (0, 0, 3)}, {"video": (0, 0, 0, 3)}])
def test_progress_without_a_preview_shows_nothing(empty):
    (name, dims), *_ = empty.items()
    event = parse(response("progress", 0, **{name: np.zeros(dims, np.uint8)}))
    assert (event.image, event.frames, event.shown, event.asked_seed) == (None, None, None, 7)


def test_slices_are_joined_to_a_video():
    frames = np.arange(9 * 18, dtype=np.uint8).reshape(9, 2, 3, 3)
    starts = {0: frames[:1], 1: frames[1:5], 5: frames[5:]}
    event = whole([parse(response("result", at, video=part)) for at, part in starts.items()])
    assert np.array_equal(event.frames, frames)
    assert (event.kind, event.index, event.denoising_ms) == ("result", 0, 2.5)
