"""Requests one tiny picture or video over gRPC, to check a pipeline from end to end."""

import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput

from stepwise.server.repository import Exported

_SECONDS = 300
# Two slices, so that the second reads the caches of the first.
_FRAMES = 5


def picture_problem(grpc_url: str, pipeline: Exported) -> Iterator[str]:
    """Request a picture with one step; yields a sentence if none arrives or it is blank."""
    name = pipeline.name
    try:
        pictures = _pictures(grpc_url, pipeline)
    except queue.Empty:
        yield f"{name} did not answer within {_SECONDS} s."
    except Exception as error:
        yield f"{name} answered with an error: {error}"
    else:
        if not pictures:
            yield f"{name} answered without a picture."
        for picture in pictures:
            if picture.ndim < 3 or picture.shape[-1] != 3 or picture.min() == picture.max():
                yield f"{name} made a blank picture of shape {list(picture.shape)}."


def _request(pipeline: Exported) -> Iterator[InferInput]:
    yield _input("prompt", np.array([b"a red star"], np.object_), "BYTES")
    yield _input("steps", np.array([1], np.int32), "INT32")
    if pipeline.makes_videos:
        yield _input("frames", np.array([_FRAMES], np.int32), "INT32")
    if pipeline.takes_images:
        height, width = pipeline.manifest["size"]
        ramp = np.linspace(0, 255, width).astype(np.uint8)
        yield _input("start_image", np.tile(ramp[None, :, None], (height, 1, 3)), "UINT8")


def _pictures(grpc_url: str, pipeline: Exported) -> list[NDArray[np.uint8]]:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with InferenceServerClient(grpc_url) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer(
            pipeline.name,
            list(_request(pipeline)),
            enable_empty_final_response=True,
        )
        return list(_received(answers))


def _received(answers: "queue.Queue[tuple[Any, Any]]") -> Iterator[NDArray[np.uint8]]:
    final = False
    while not final:
        result, error = answers.get(timeout=_SECONDS)
        if error is not None:
            raise error
        response = result.get_response()
        final = response.parameters["triton_final_response"].bool_param
        for output in response.outputs:
            if output.datatype == "UINT8" and 0 not in output.shape:
                yield result.as_numpy(output.name)


def _input(name: str, value: NDArray[Any], datatype: str) -> InferInput:
    tensor = InferInput(name, list(value.shape), datatype)
    tensor.set_data_from_numpy(value)
    return tensor
