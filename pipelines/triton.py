"""The three Python models of a pipeline, and the only file that knows Triton's Python API."""

import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from pipelines import PIPELINES, request_log
from pipelines.conditioning import Conditioning, slots
from pipelines.decode import response
from pipelines.errors import InvalidRequest, ModelFailed, RequestError, Unavailable
from pipelines.events import Event
from pipelines.fields import Array, text
from pipelines.inflight.batcher import Batcher
from pipelines.inflight.hangups import HangUps
from pipelines.inflight.loop import Loop
from pipelines.inflight.request import Float32, Request, Summary, table
from pipelines.metrics import Metrics
from pipelines.prepare import Preparer
from pipelines.settings import Settings
from pipelines.spec import CANCEL, EVENT, LATENTS, SETTINGS, Tensor

log = logging.getLogger(__name__)

_LONGEST_ID = 256
# What Triton says to a model's calls once it has been told to end.
_STOPPING = "Server not ready"
_FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class Prepare:
    """``<name>_prepare``: request tensors in, encoder inputs and settings out."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the manifest, the batch caps and the tokenizers beside this model."""
        self._name = _parameter(args, "name")
        pipeline = PIPELINES[_parameter(args, "pipeline")]
        self._prepare = Preparer(pipeline, Path(args["model_repository"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself; a bad one fails alone."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        inputs = _unpack(request)
        asked = request_log.asked(inputs)
        try:
            fed, settings = self._prepare(inputs, time.monotonic())
        except Exception as error:
            refused = _as_request_error(error)
            described = {"id": request.request_id(), "pipeline": self._name, "asked": asked}
            request_log.write({**described, "outcome": refused.code, "error": str(refused)})
            return _failure(refused)
        line = np.asarray([replace(settings, asked=asked).to_json().encode()], np.object_)
        return _pack({**fed, SETTINGS.name: line})


class Denoise:
    """``<name>_denoise``: embeddings in, progress and latents out, batched at every step."""

    def initialize(self, args: dict[str, str]) -> None:
        """Start the loop over ``<name>_<denoiser>``."""
        self._name = _parameter(args, "name")
        self._pipeline = PIPELINES[_parameter(args, "pipeline")]
        self._denoiser = f"{self._name}_{self._pipeline.denoiser.name}"
        self._metrics = Metrics(self._name, pb_utils.MetricFamily)
        self._batcher = Batcher(self._predict, self._pipeline.capacity, self._metrics)
        self._metrics.follow(self._batcher)
        # To hand Triton the answers of eight pictures takes as long as a tenth of a small model's
        # step, in which the next step can begin.
        self._sending = ThreadPoolExecutor(1, "send")
        self._loop = Loop(self._batcher, died=self._die)
        self._hang_ups = HangUps(self._batcher)
        self._hang_ups.start()

    def execute(self, requests: list[Any]) -> None:
        """Queue requests, whose answers come from the loop's thread, and pass on cancellations."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                inputs = _unpack(request)
                if CANCEL.name in inputs:
                    self._batcher.cancel(text(inputs, CANCEL.name, "", _LONGEST_ID))
                    sender.send(flags=_FINAL)
                else:
                    self._submit(request, inputs, sender)
            except Exception as error:
                sender.send(_failure(error), flags=_FINAL)

    def finalize(self) -> None:
        """Finish what is under way."""
        self._loop.close()
        self._hang_ups.close()
        self._sending.shutdown()
        self._metrics.close()

    def _die(self) -> None:
        """End this process: without its loop it is of no use, and only that is noticed."""
        self._sending.shutdown()
        os._exit(1)

    def _submit(self, request: Any, inputs: Mapping[str, Array], sender: Any) -> None:
        built = self._request(request.request_id(), inputs, sender)
        try:
            self._loop.submit(built)
        except RequestError as error:
            described = {**self._described(built), "outcome": error.code, "error": str(error)}
            request_log.write(described)
            raise

    def _request(self, request_id: str, inputs: Mapping[str, Array], sender: Any) -> Request:
        missing = [t.name for t in (SETTINGS, *self._pipeline.embeddings) if t.name not in inputs]
        if missing:
            raise InvalidRequest(
                f"got no {', '.join(missing)}; send requests to the ensemble {self._name}, and "
                f"here only {CANCEL.name!r}"
            )
        settings, line = Settings.from_json(inputs[SETTINGS.name][0]), _Line(sender)

        def send(event: Event, latents: Float32 | None, summary: Summary | None) -> None:
            picture = np.zeros((0, 0, 0), np.float32) if latents is None else latents
            if summary is not None:
                event = replace(event, record={**self._described(request), **asdict(summary)})
            told = np.asarray([event.to_json().encode()], np.object_)
            answer = _pack({LATENTS.name: picture, EVENT.name: told})
            self._sending.submit(line.send, answer, summary is not None)

        def fail(error: RequestError, summary: Summary) -> None:
            record = {**self._described(request), **asdict(summary), "error": str(error)}
            request_log.write(record)
            self._sending.submit(line.send, _failure(error), True)

        request = Request(
            # An empty id cannot be cancelled; it still must not be another request's.
            id=request_id or uuid.uuid4().hex,
            settings=settings,
            slots=slots(self._pipeline, inputs, settings),
            table=table(settings),
            send=send,
            fail=fail,
            hung_up=line.hung_up,
        )
        return request

    def _described(self, request: Request) -> request_log.Record:
        """What the log says of a request beside how it ended."""
        settings = request.settings
        return {
            "id": request.id,
            "pipeline": self._name,
            "asked": settings.asked,
            "seed": settings.seed,
            "resolution": settings.resolution,
            "sampler": settings.sampler,
            "steps": settings.steps,
        }

    def _predict(self, latents: Float32, timesteps: Float32, conditioning: Conditioning) -> Float32:
        names = [tensor.name for tensor in self._pipeline.denoiser.inputs]
        values = {**conditioning, names[0]: latents, names[1]: timesteps}
        inputs = {name: values[name] for name in names}
        return _call(self._denoiser, inputs, self._pipeline.denoiser.outputs[0])


class _Line:
    """The way back to a caller, which is not asked for after the last answer: Triton dies of it."""

    def __init__(self, sender: Any) -> None:
        self._sender = sender
        self._open = True
        self._lock = threading.Lock()

    def send(self, answer: Any, last: bool) -> None:
        with self._lock:
            self._open = not last
            _send(self._sender, answer, last)

    def hung_up(self) -> bool:
        with self._lock:
            return self._open and bool(self._sender.is_cancelled())


class Decode:
    """``<name>_decode``: latents in, uint8 pictures out; progress passes through."""

    def initialize(self, args: dict[str, str]) -> None:
        """Answer in one thread, so that events keep their order."""
        self._pipeline = PIPELINES[_parameter(args, "pipeline")]
        self._decoder = f"{_parameter(args, 'name')}_{self._pipeline.decoder.name}"
        self._thread = ThreadPoolExecutor(1, "decode")

    def execute(self, requests: list[Any]) -> None:
        """Hand events and their latents to the thread."""
        for request in requests:
            inputs, sender = _unpack(request), request.get_response_sender()
            event, latents = Event.from_json(inputs[EVENT.name][0]), inputs[LATENTS.name].copy()
            self._thread.submit(self._answer, event, latents, sender)

    def finalize(self) -> None:
        """Finish what is under way."""
        self._thread.shutdown()

    def _answer(self, event: Event, latents: Float32, sender: Any) -> None:
        began, failed = time.monotonic(), {}
        try:
            pictures = self._decode(latents[None]) if latents.size else None
            answer = _pack(response(self._pipeline, event, pictures))
        except Exception as error:
            answer = _failure(error)
            failed = {"outcome": _as_request_error(error).code, "error": str(error)}
        if event.record is not None:
            decoding = {"decoding_ms": 1000 * (time.monotonic() - began)}
            request_log.write({**event.record, **decoding, **failed})
        _send(sender, answer, last=True)

    def _decode(self, latents: Float32) -> Array:
        decoder = self._pipeline.decoder
        return _call(self._decoder, {decoder.inputs[0].name: latents}, decoder.outputs[0])


def _parameter(args: Mapping[str, str], name: str) -> str:
    """A string parameter of the model's config."""
    return str(json.loads(args["model_config"])["parameters"][name]["string_value"])


def _unpack(request: Any) -> dict[str, Array]:
    """The request's input tensors by name."""
    return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}


def _pack(outputs: Mapping[str, Array]) -> Any:
    """A response with these output tensors."""
    return pb_utils.InferenceResponse([pb_utils.Tensor(k, v) for k, v in outputs.items()])


def _as_request_error(error: Exception) -> RequestError:
    """The error as a caller sees it; whatever is not a RequestError is logged in full."""
    if isinstance(error, RequestError):
        return error
    log.error("a request failed unexpectedly", exc_info=error)
    return RequestError(f"the server failed on this request: {error!r}")


def _failure(error: Exception) -> Any:
    """A response that carries the error."""
    told = _as_request_error(error)
    # A streamed error reaches the client as text alone, so the text says its code. Triton has
    # not all of gRPC's codes.
    code = getattr(pb_utils.TritonError, told.code, pb_utils.TritonError.UNAVAILABLE)
    return pb_utils.InferenceResponse([], pb_utils.TritonError(f"[{told.code}] {told}", code))


def _send(sender: Any, answer: Any, last: bool) -> None:
    """Send one response; a client that is gone is no reason to stop."""
    try:
        sender.send(answer, flags=_FINAL if last else 0)
    except pb_utils.TritonModelException as error:
        log.info("a response could not be delivered: %s", error)


def _call(model: str, inputs: Mapping[str, Array], output: Tensor) -> Array:
    """Run another model over BLS and return one of its outputs.

    Raises ModelFailed if it fails, and Unavailable while Triton is stopping.
    """
    answer = pb_utils.InferenceRequest(
        model_name=model,
        requested_output_names=[output.name],
        inputs=[pb_utils.Tensor(name, value) for name, value in inputs.items()],
    ).exec()
    if answer.has_error():
        message = answer.error().message()
        if _STOPPING in message:
            raise Unavailable("the server is stopping; try again when it is back")
        raise ModelFailed(f"{model}: {message}")
    # The tensor's memory is gone with the answer.
    result: Array = pb_utils.get_output_tensor_by_name(answer, output.name).as_numpy().copy()
    return result
