"""Calls a pipeline over gRPC and iterates over its answers."""

import json
import queue
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient import grpc
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from client.errors import InvalidRequest, RequestFailed, ServerUnavailable, TimedOut, typed
from client.events import Event, parse

Setting = str | int | float
_RETRY_SECONDS = 0.2


class Client:
    """A connection to one server; safe to use from several threads.

    Every request opens a stream of its own, so that closing one leaves the others alone.
    ``timeout`` is how many seconds a request may take in all; None waits as long as it takes.
    """

    def __init__(self, url: str = "127.0.0.1:8001", timeout: float | None = None) -> None:
        self.url = url
        self.timeout = timeout
        self._server = grpc.InferenceServerClient(url)
        self._configs: dict[str, Any] = {}

    def inputs(self, pipeline: str) -> Mapping[str, str]:
        """The names and Triton types of the pipeline's inputs, asked of the server once.

        Raises ServerUnavailable if nobody answers or the pipeline is not served.
        """
        tensors = self._config(pipeline).input
        return {tensor.name: _type_name(tensor.data_type) for tensor in tensors}

    def defaults(self, pipeline: str) -> dict[str, Any]:
        """What the server takes for settings that a request leaves out, asked once."""
        parameters = self._config(f"{pipeline}_prepare").parameters
        defaults: dict[str, Any] = json.loads(parameters["request"].string_value)["defaults"]
        return defaults

    def generate(self, pipeline: str, prompt: str, **settings: Setting) -> Iterator[Event]:
        """Yield progress and results in the order in which the server sends them.

        ``settings`` are the pipeline's inputs by name, for example ``steps=20, seed=7``; text is
        converted to the input's type. Closing the iterator cancels the stream. Raises
        InvalidRequest, ServerUnavailable, TimedOut or RequestFailed.
        """
        known = self.inputs(pipeline)
        tensors = [
            _tensor(pipeline, known, k, v) for k, v in {"prompt": prompt, **settings}.items()
        ]
        return self._stream(pipeline, tensors)

    def pictures(self, pipeline: str, prompt: str, **settings: Setting) -> list[Event]:
        """The results alone, one event per picture; waits for all of them."""
        events = self.generate(pipeline, prompt, **settings)
        return [event for event in events if event.kind == "result"]

    def _config(self, model: str) -> Any:
        """A model's config; asking again is harmless, so one lost connection is tried again."""
        if model not in self._configs:
            try:
                self._configs[model] = self._ask(model)
            except ServerUnavailable:
                time.sleep(_RETRY_SECONDS)
                self._configs[model] = self._ask(model)
        return self._configs[model]

    def _ask(self, model: str) -> Any:
        try:
            return self._server.get_model_config(model, client_timeout=self.timeout).config
        except InferenceServerException as error:
            raise typed(error, self.url) from error

    def _stream(self, pipeline: str, tensors: list[grpc.InferInput]) -> Iterator[Event]:
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        server = grpc.InferenceServerClient(self.url)
        # Not with the header triton_grpc_error, which would give errors a status: Triton 24.10
        # then dies after some thousand errors.
        server.start_stream(lambda result, error: answers.put((result, error)))
        try:
            server.async_stream_infer(
                pipeline, tensors, request_id=str(uuid.uuid4()), enable_empty_final_response=True
            )
            yield from self._events(answers)
        finally:
            server.stop_stream(cancel_requests=True)
            server.close()

    def _events(self, answers: "queue.SimpleQueue[Any]") -> Iterator[Event]:
        """Answers as events until the last one; RequestFailed if no picture was among them."""
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        done = False
        while True:
            result, error = self._next(answers, deadline)
            if error is not None:
                raise typed(error, self.url) from error
            response = result.get_response()
            if response.outputs:
                event = parse(result)
                done = done or event.kind == "result"
                yield event
            if response.parameters["triton_final_response"].bool_param:
                break
        if not done:
            raise RequestFailed("the server ended the request without a picture; see its log")

    def _next(self, answers: "queue.SimpleQueue[Any]", deadline: float | None) -> Any:
        """The next answer; TimedOut if it does not come before ``deadline``."""
        try:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            return answers.get(timeout=left)
        except queue.Empty:
            raise TimedOut(
                f"no complete answer within {self.timeout:g} s; the server may be busy: "
                "allow more time or ask for fewer steps"
            ) from None


def _type_name(data_type: int) -> str:
    """The name that inference requests use for a type of the model config, e.g. ``BYTES``."""
    generated: Any = model_config_pb2
    name: str = generated.DataType.Name(data_type)
    return name.removeprefix("TYPE_").replace("STRING", "BYTES")


def _tensor(pipeline: str, known: Mapping[str, str], name: str, value: Setting) -> grpc.InferInput:
    """One request tensor of shape (1,), of the type that the server asks for."""
    if name not in known:
        raise InvalidRequest(f"{name}: {pipeline} has no such setting; it has {', '.join(known)}")
    data = _convert(name, value, known[name])
    tensor = grpc.InferInput(name, [1], known[name])
    tensor.set_data_from_numpy(data)
    return tensor


def _convert(name: str, value: Setting, dtype: str) -> npt.NDArray[Any]:
    if dtype == "BYTES":
        return np.asarray([str(value).encode()], np.object_)
    numpy_dtype = triton_to_np_dtype(dtype)
    try:
        number: float = float(value) if dtype.startswith("FP") else int(value)
        return np.asarray([number], numpy_dtype)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(
            f"{name}: got {value!r}; a number of type {dtype} is needed"
        ) from error
