"""Sends requests at Triton's gRPC level and records every response until the stream ends.

The client would hide protocol errors (two results, a response after an error), so the soak test
bypasses it.
"""

import re
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient

from stepwise.families import FAMILIES

_NUMPY = {
    "BOOL": np.bool_,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP32": np.float32,
    "BYTES": np.object_,
}


@dataclass
class Answers:
    """All responses to one request. ``codes`` are error codes, such as INVALID_ARG."""

    request_id: str
    pictures: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    finals: int = 0
    strangers: int = 0

    @property
    def once(self) -> bool:
        """Whether the request got exactly one response: its picture or one error."""
        answered = len(self.pictures) == 1 and self.finals == 1 and not self.codes
        failed = not self.pictures and len(self.codes) == 1
        return (answered or failed) and not self.strangers

    @property
    def code(self) -> str:
        """The first error's code; empty for a picture."""
        return self.codes[0] if self.codes else ""


async def ask(
    server: InferenceServerClient, name: str, settings: Mapping[str, Any], request_id: str
) -> Answers:
    """Send one request to the pipeline ``name`` and read until its stream ends."""
    types = {tensor.name: tensor.dtype for tensor in FAMILIES[name].request}
    tensors = [_tensor(key, types[key], value) for key, value in settings.items()]
    answers = Answers(request_id)
    async for result, error in _stream(server, name, tensors, request_id):
        if error is not None:
            found = re.search(r"\[([A-Z_]+)\]", error.message())
            answers.codes.append(found[1] if found else error.message())
            continue
        response = result.get_response()
        answers.strangers += response.id != request_id
        answers.finals += response.parameters["triton_final_response"].bool_param
        if response.outputs and result.as_numpy("kind")[0] == b"result":
            answers.pictures.append(result.as_numpy("image"))
    return answers


async def cancel(server: InferenceServerClient, name: str, request_id: str) -> None:
    """Cancel a request to the pipeline ``name``."""
    tensors = [_tensor("cancel", "BYTES", request_id)]
    async for _, error in _stream(server, name, tensors, ""):
        if error is not None:
            raise error


def new_id() -> str:
    """A unique request id."""
    return str(uuid.uuid4())


def _stream(
    server: InferenceServerClient, model: str, tensors: list[InferInput], request_id: str
) -> AsyncIterator[Any]:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        yield {
            "model_name": model,
            "inputs": tensors,
            "request_id": request_id,
            "enable_empty_final_response": True,
        }

    answers: AsyncIterator[Any] = server.stream_infer(requests())
    return answers


def _tensor(name: str, dtype: str, value: Any) -> InferInput:
    data = value.encode() if isinstance(value, str) else value
    values = value if isinstance(value, np.ndarray) else np.asarray([data], _NUMPY[dtype])
    tensor = InferInput(name, list(values.shape), dtype)
    tensor.set_data_from_numpy(values)
    return tensor
