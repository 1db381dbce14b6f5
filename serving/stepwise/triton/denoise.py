"""``<name>_denoise`` turns embeddings into progress and latents, batched at every step."""

import os
import threading
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from stepwise.batching.batcher import Batcher
from stepwise.batching.disconnects import Disconnects
from stepwise.batching.loop import Loop
from stepwise.batching.metrics import Metrics
from stepwise.batching.request import Float32, Request, Summary, table
from stepwise.description.errors import InvalidRequest, RequestError
from stepwise.description.family import Conditioning
from stepwise.description.fields import Array, text
from stepwise.description.settings import Settings
from stepwise.description.spec import CANCEL, DECODED, EVENT, SETTINGS
from stepwise.families import FAMILIES
from stepwise.request import log
from stepwise.request.events import Event, cancelling
from stepwise.triton.bridge import (
    FINAL,
    call,
    failure,
    metric_families,
    pack,
    parameter,
    send,
    tell,
    unpack,
)

_LONGEST_ID = 256


class Denoise:
    """Denoises all requests in one running batch; inputs are embeddings, outputs are latents."""

    def initialize(self, args: dict[str, str]) -> None:
        """Start the denoising loop, which calls ``<name>_<denoiser>``."""
        self._name = parameter(args, "name")
        self._family = FAMILIES[parameter(args, "pipeline")]
        self._denoiser = f"{self._name}_{self._family.denoiser.name}"
        self._metrics = Metrics(self._name, metric_families())
        self._batcher = Batcher(
            self._predict, self._family.capacity, self._metrics, held=self._family.makes_videos
        )
        self._metrics.follow(self._batcher)
        # Sending the responses of eight pictures takes a tenth of a small model's step, so another
        # thread sends them while the next step runs.
        self._sending = ThreadPoolExecutor(1, "send")
        self._loop = Loop(self._batcher, died=self._die)
        self._disconnects = Disconnects(self._batcher)
        self._disconnects.start()

    def execute(self, requests: list[Any]) -> None:
        """Queue requests and handle messages; responses come from another thread."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                inputs = unpack(request)
                if self._told(inputs):
                    sender.send(flags=FINAL)
                else:
                    self._submit(request, inputs, sender)
            except Exception as error:
                sender.send(failure(error), flags=FINAL)

    def _told(self, inputs: Mapping[str, Array]) -> bool:
        """Handle a message with the ID of a cancelled or decoded request; false for a request."""
        if CANCEL.name in inputs:
            self._cancel(text(inputs, CANCEL.name, "", _LONGEST_ID))
        elif DECODED.name in inputs:
            self._batcher.release(text(inputs, DECODED.name, "", _LONGEST_ID))
        else:
            return False
        return True

    def _cancel(self, request_id: str) -> None:
        if not self._batcher.cancel(request_id):
            told = np.asarray([cancelling(request_id).encode()], np.object_)
            nothing = np.zeros([0] * len(self._family.latents.dims), np.float32)
            tell(f"{self._name}_decode", {EVENT.name: told, self._family.latents.name: nothing})

    def finalize(self) -> None:
        """Finish running requests."""
        self._loop.close()
        self._disconnects.close()
        self._sending.shutdown()
        self._metrics.close()

    def _die(self) -> None:
        """Exit: the server monitors only processes, and this one is useless without its loop."""
        self._sending.shutdown()
        os._exit(1)

    def _submit(self, request: Any, inputs: Mapping[str, Array], sender: Any) -> None:
        built = self._request(request.request_id(), inputs, sender)
        try:
            self._loop.submit(built)
        except RequestError as error:
            described = {**self._described(built), "outcome": error.code, "error": str(error)}
            log.write(described)
            raise

    def _request(self, request_id: str, inputs: Mapping[str, Array], sender: Any) -> Request:
        due = (SETTINGS, *self._family.denoiser_feeds)
        missing = [tensor.name for tensor in due if tensor.name not in inputs]
        if missing:
            raise InvalidRequest(
                f"got no {', '.join(missing)}; send requests to the ensemble {self._name}, and "
                f"to this model only {CANCEL.name!r}"
            )
        settings, line = Settings.from_json(inputs[SETTINGS.name][0]), _Line(sender)

        def send(event: Event, latents: Float32 | None, summary: Summary | None) -> None:
            nothing = np.zeros([0] * len(settings.latent_shape), np.float32)
            if summary is not None:
                event = replace(event, record={**self._described(request), **asdict(summary)})
            told = np.asarray([event.to_json().encode()], np.object_)
            shown = nothing if latents is None else latents
            answer = pack({self._family.latents.name: shown, EVENT.name: told})
            self._sending.submit(line.send, answer, summary is not None)

        def fail(error: RequestError, summary: Summary) -> None:
            record = {**self._described(request), **asdict(summary), "error": str(error)}
            log.write(record)
            self._sending.submit(line.send, failure(error), True)

        request = Request(
            # A request without an ID cannot be cancelled, but it still needs a unique one here.
            id=request_id or uuid.uuid4().hex,
            settings=settings,
            row_conditioning=self._family.row_conditioning(inputs, settings),
            table=table(settings),
            send=send,
            fail=fail,
            shared=self._family.shared(settings),
            disconnected=line.disconnected,
        )
        return request

    def _described(self, request: Request) -> log.Record:
        """The entry of a request in the log, without its outcome."""
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
        names = [tensor.name for tensor in self._family.denoiser.inputs]
        values = {**conditioning, names[0]: latents, names[1]: timesteps}
        inputs = {name: values[name] for name in names}
        outputs = self._family.denoiser.outputs
        prediction: Float32 = call(self._denoiser, inputs, outputs)[outputs[0].name]
        return prediction


class _Line:
    """Sends responses. Never checks for a disconnect after the last one: Triton would crash."""

    def __init__(self, sender: Any) -> None:
        self._sender = sender
        self._open = True
        self._lock = threading.Lock()

    def send(self, answer: Any, last: bool) -> None:
        with self._lock:
            self._open = not last
            send(self._sender, answer, last)

    def disconnected(self) -> bool:
        with self._lock:
            return self._open and bool(self._sender.is_cancelled())
