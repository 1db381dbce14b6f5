"""One tiny picture over gRPC, to see that a pipeline works from end to end."""

import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput

_SECONDS = 300


def picture_problem(grpc_url: str, pipeline: str) -> Iterator[str]:
    """Ask for a picture of one step; yields a sentence if none comes or it shows nothing."""
    try:
        pictures = _pictures(grpc_url, pipeline)
    except queue.Empty:
        yield f"{pipeline} did not answer within {_SECONDS} s."
    except Exception as error:
        yield f"{pipeline} answered with an error: {error}"
    else:
        if not pictures:
            yield f"{pipeline} answered without a picture."
        for picture in pictures:
            if picture.ndim < 3 or picture.shape[-1] != 3 or picture.min() == picture.max():
                yield f"{pipeline} made a blank picture of shape {list(picture.shape)}."


def _pictures(grpc_url: str, pipeline: str) -> list[NDArray[np.uint8]]:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with InferenceServerClient(grpc_url) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer(
            pipeline,
            [_input("prompt", "BYTES", b"a red star"), _input("steps", "INT32", 1)],
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


def _input(name: str, datatype: str, value: bytes | int) -> InferInput:
    tensor = InferInput(name, [1], datatype)
    dtype = np.object_ if datatype == "BYTES" else np.int32
    tensor.set_data_from_numpy(np.array([value], dtype))
    return tensor
