"""``<name>_denoise`` turns embeddings into progress and latents, batched at every step."""

import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from stepwise.batching.batcher import Batcher
from stepwise.batching.loop import Loop
from stepwise.batching.metrics import Metrics
from stepwise.batching.request import Float32, Request, Summary, table
from stepwise.description.errors import InvalidRequest, RequestError
from stepwise.description.family import Conditioning
from stepwise.description.fields import Array, text
from stepwise.description.settings import Settings
from stepwise.description.spec import CANCEL, DECODED, EVENT, SETTINGS
from stepwise.families import FAMILIES
from stepwise.request import log, shared_state
from stepwise.request.events import Event, cancelling
from stepwise.request.ids import SHORTEST, can_be_guessed, private
from stepwise.request.signature import shapes
from stepwise.triton.bridge import (
    FINAL,
    call,
    call_limit,
    failure,
    metric_families,
    pack,
    parameter,
    send,
    signer,
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
        self._signer = signer(self._name)
        self._encoded = [tensor.name for tensor in self._family.denoiser_feeds]
        self._limit = call_limit(self._name, shared_state.DENOISE)
        self._metrics = Metrics(self._name, metric_families())
        self._batcher = Batcher(
            self._predict, self._family.capacity, self._metrics, held=self._family.makes_videos
        )
        self._metrics.follow(self._batcher)
        self._occupancy = shared_state.Occupancy(
            shared_state.folder(), self._name, shared_state.DENOISE
        )
        self._counting = threading.Lock()
        self._count()
        # Sending the responses of eight pictures takes a tenth of a small model's step, so another
        # thread sends them while the next step runs.
        self._sending = ThreadPoolExecutor(1, "send")
        self._loop = Loop(self._batcher, died=self._die)

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
            decoded = self._signer.check("decoded", "", inputs[DECODED.name][0])
            self._batcher.release(decoded.decode())
            self._count()
        else:
            return False
        return True

    def _count(self) -> None:
        """Report the pictures here to ``encode``, which admits no more than fit."""
        # Several threads count: without the lock an older number could be written last.
        with self._counting:
            self._occupancy.write(self._batcher.occupied)

    def _cancel(self, request_id: str) -> None:
        if can_be_guessed(request_id):
            raise InvalidRequest(
                f"cancel: got {request_id!r}, which others can guess; only a request with an ID of "
                f"at least {SHORTEST} characters can be cancelled"
            )
        if not self._batcher.cancel(request_id):
            nothing = np.zeros([0] * len(self._family.latents.dims), np.float32)
            tell(f"{self._name}_decode", self._event("", cancelling(request_id), nothing))

    def _event(self, request_id: str, line: str, latents: Float32) -> dict[str, Array]:
        """The tensors of a message to ``decode``."""
        outputs = {self._family.latents.name: latents}
        signed = self._signer.sign("event", request_id, line, shapes(outputs, outputs))
        return {**outputs, EVENT.name: signed}

    def finalize(self) -> None:
        """Finish running requests."""
        self._loop.close()
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
        self._count()

    def _request(self, request_id: str, inputs: Mapping[str, Array], sender: Any) -> Request:
        due = (SETTINGS, *self._family.denoiser_feeds)
        missing = [tensor.name for tensor in due if tensor.name not in inputs]
        if missing:
            raise InvalidRequest(
                f"got no {', '.join(missing)}; send requests to the ensemble {self._name}, and "
                f"to this model only {CANCEL.name!r}"
            )
        tensors = shapes(inputs, self._encoded)
        signed = inputs[SETTINGS.name][0]
        settings = Settings.from_json(self._signer.check("encoded", request_id, signed, tensors))

        def report(event: Event, latents: Float32 | None, summary: Summary | None) -> None:
            nothing = np.zeros([0] * len(settings.latent_shape), np.float32)
            if summary is not None:
                event = replace(event, record={**self._described(request), **asdict(summary)})
                self._count()
            shown = nothing if latents is None else latents
            answer = pack(self._event(request_id, event.to_json(), shown))
            self._sending.submit(send, sender, answer, summary is not None)

        def fail(error: RequestError, summary: Summary) -> None:
            record = {**self._described(request), **asdict(summary), "error": str(error)}
            log.write(record)
            self._count()
            self._sending.submit(send, sender, failure(error), True)

        request = Request(
            id=private(request_id),
            settings=settings,
            row_conditioning=self._family.row_conditioning(inputs, settings),
            table=table(settings),
            send=report,
            fail=fail,
            shared=self._family.shared(settings),
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
        prediction: Float32 = call(self._limit, self._denoiser, inputs, outputs)[outputs[0].name]
        return prediction
