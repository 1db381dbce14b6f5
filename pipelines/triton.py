"""The three Python models of a pipeline, and the only file that knows Triton's Python API."""

import json
import logging
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from pipelines import PIPELINES
from pipelines.conditioning import Conditioning, slots
from pipelines.decode import response
from pipelines.errors import ModelFailed, RequestError
from pipelines.events import Event
from pipelines.inflight.loop import Loop
from pipelines.inflight.request import Float32, Request, table
from pipelines.prepare import Preparer
from pipelines.settings import Array, Settings
from pipelines.spec import EVENT, LATENTS, SETTINGS, Tensor

log = logging.getLogger(__name__)

_FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class Prepare:
    """``<name>_prepare``: request tensors in, token ids and settings out."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the manifest and the tokenizers beside this model."""
        pipeline = PIPELINES[_parameter(args, "pipeline")]
        self._prepare = Preparer(pipeline, Path(args["model_repository"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself; a bad one fails alone."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            ids, settings = self._prepare(_unpack(request), time.monotonic())
        except Exception as error:
            return _failure(error)
        text = np.asarray([settings.to_json().encode()], np.object_)
        return _pack({**ids, SETTINGS.name: text})


class Denoise:
    """``<name>_denoise``: embeddings in, progress and latents out, batched at every step."""

    def initialize(self, args: dict[str, str]) -> None:
        """Start the loop over ``<name>_<denoiser>``."""
        self._pipeline = PIPELINES[_parameter(args, "pipeline")]
        self._denoiser = f"{_parameter(args, 'name')}_{self._pipeline.denoiser.name}"
        # Without its loop this model is of no use, and only the end of its process is noticed.
        self._loop = Loop(self._predict, self._pipeline.slots, died=lambda: os._exit(1))

    def execute(self, requests: list[Any]) -> None:
        """Queue the requests; answers come from the loop's thread."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._loop.submit(self._request(_unpack(request), sender))
            except Exception as error:
                sender.send(_failure(error), flags=_FINAL)

    def finalize(self) -> None:
        """Finish what is under way."""
        self._loop.close()

    def _request(self, inputs: Mapping[str, Array], sender: Any) -> Request:
        settings = Settings.from_json(inputs[SETTINGS.name][0])

        def send(event: Event, latents: Float32 | None, last: bool) -> None:
            picture = np.zeros((0, 0, 0), np.float32) if latents is None else latents
            line = np.asarray([event.to_json().encode()], np.object_)
            _send(sender, _pack({LATENTS.name: picture, EVENT.name: line}), last)

        return Request(
            settings=settings,
            slots=slots(self._pipeline, inputs, settings.guidance_scale),
            table=table(settings),
            send=send,
            fail=lambda error: _send(sender, _failure(error), last=True),
        )

    def _predict(self, latents: Float32, timesteps: Float32, conditioning: Conditioning) -> Float32:
        names = [tensor.name for tensor in self._pipeline.denoiser.inputs]
        values = {**conditioning, names[0]: latents, names[1]: timesteps}
        inputs = {name: values[name] for name in names}
        return _call(self._denoiser, inputs, self._pipeline.denoiser.outputs[0])


class Decode:
    """``<name>_decode``: latents in, uint8 pictures out; progress passes through."""

    def initialize(self, args: dict[str, str]) -> None:
        """Decode in one thread: progress is not held up, and pictures keep their order."""
        self._pipeline = PIPELINES[_parameter(args, "pipeline")]
        self._decoder = f"{_parameter(args, 'name')}_{self._pipeline.decoder.name}"
        self._thread = ThreadPoolExecutor(1, "decode")

    def execute(self, requests: list[Any]) -> None:
        """Answer progress at once and hand finished latents to the thread."""
        for request in requests:
            inputs, sender = _unpack(request), request.get_response_sender()
            event = Event.from_json(inputs[EVENT.name][0])
            if event.kind == "result":
                latents = inputs[LATENTS.name][None].copy()
                self._thread.submit(self._decode, event, latents, sender)
            else:
                _send(sender, _pack(response(self._pipeline, event, None)), last=True)

    def finalize(self) -> None:
        """Finish what is under way."""
        self._thread.shutdown()

    def _decode(self, event: Event, latents: Float32, sender: Any) -> None:
        decoder = self._pipeline.decoder
        try:
            pictures = _call(self._decoder, {decoder.inputs[0].name: latents}, decoder.outputs[0])
            answer = _pack(response(self._pipeline, event, pictures))
        except Exception as error:
            answer = _failure(error)
        _send(sender, answer, last=True)


def _parameter(args: Mapping[str, str], name: str) -> str:
    """A string parameter of the model's config."""
    return str(json.loads(args["model_config"])["parameters"][name]["string_value"])


def _unpack(request: Any) -> dict[str, Array]:
    """The request's input tensors by name."""
    return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}


def _pack(outputs: Mapping[str, Array]) -> Any:
    """A response with these output tensors."""
    return pb_utils.InferenceResponse([pb_utils.Tensor(k, v) for k, v in outputs.items()])


def _failure(error: Exception) -> Any:
    """A response that carries the error; whatever is not a RequestError is logged in full."""
    if not isinstance(error, RequestError):
        log.error("a request failed unexpectedly", exc_info=error)
        error = RequestError(f"the server failed on this request: {error!r}")
    code = getattr(pb_utils.TritonError, error.code)
    # A streamed error reaches the client as text alone, so the text says its code.
    return pb_utils.InferenceResponse([], pb_utils.TritonError(f"[{error.code}] {error}", code))


def _send(sender: Any, answer: Any, last: bool) -> None:
    """Send one response; a client that is gone is no reason to stop."""
    try:
        sender.send(answer, flags=_FINAL if last else 0)
    except pb_utils.TritonModelException as error:
        log.info("a response could not be delivered: %s", error)


def _call(model: str, inputs: Mapping[str, Array], output: Tensor) -> Array:
    """Run another model over BLS and return one of its outputs; ModelFailed if it fails."""
    answer = pb_utils.InferenceRequest(
        model_name=model,
        requested_output_names=[output.name],
        inputs=[pb_utils.Tensor(name, value) for name, value in inputs.items()],
    ).exec()
    if answer.has_error():
        raise ModelFailed(f"{model}: {answer.error().message()}")
    # The tensor's memory is gone with the answer.
    result: Array = pb_utils.get_output_tensor_by_name(answer, output.name).as_numpy().copy()
    return result
