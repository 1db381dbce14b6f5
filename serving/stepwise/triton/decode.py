"""``<name>_decode`` decodes latents to pictures or slices of videos, and passes progress on."""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from stepwise.description.errors import Cancelled
from stepwise.description.fields import Array
from stepwise.description.manifest import VideoLayout
from stepwise.description.spec import CANCEL, DECODED, EVENT
from stepwise.description.vae_caches import with_caches
from stepwise.families import FAMILIES
from stepwise.request import log, shared_state
from stepwise.request.events import Event, cancelled
from stepwise.request.response import Float32, response
from stepwise.request.signature import shapes
from stepwise.triton.bridge import (
    FINAL,
    as_request_error,
    call,
    call_limit,
    failure,
    pack,
    parameter,
    send,
    signer,
    tell,
    unpack,
)
from stepwise.triton.round_robin import RoundRobin
from stepwise.video import sliced_vae

# Videos of several slices decoded at the same time; the caches of a large one take gigabytes.
_AT_ONCE = 2
# A cancellation that arrives after the last slice leaves its ID behind, so the IDs are limited.
_REMEMBER_AT_MOST = 1000


class Decode:
    """Decodes each request's events in order, one picture or slice at a time.

    Peers take turns, within a peer its clients, and within a client its requests.

    Only a few videos are decoded at a time, and later ones wait for one to end. Single pictures,
    previews and progress do not wait.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Start the thread that decodes and sends responses."""
        self._name = parameter(args, "name")
        self._family = FAMILIES[parameter(args, "pipeline")]
        self._decoder = f"{self._name}_{self._family.decoder.name}"
        self._signer = signer(self._name)
        self._cancelled: dict[str, None] = {}
        self._videos: deque[Event] = deque()
        self._limit = call_limit(self._name, shared_state.DECODE)
        shared = shared_state.folder()
        occupancy = shared_state.Occupancy(shared, self._name, shared_state.DECODE)
        self._turns = RoundRobin("decode", occupancy.write)

    def execute(self, requests: list[Any]) -> None:
        """Queue events and their latents, or stop a cancelled request."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._queue(request, unpack(request), sender)
            except Exception as error:
                send(sender, failure(error), last=True)

    def _queue(self, request: Any, inputs: Mapping[str, Array], sender: Any) -> None:
        latents = self._family.latents.name
        tensors = shapes(inputs, (latents,))
        line = self._signer.check("event", request.request_id(), inputs[EVENT.name][0], tensors)
        if (stopped := cancelled(line)) is not None:
            self._stop(stopped)
            sender.send(flags=FINAL)
            return
        event = Event.from_json(line)
        owner = (*event.member, event.request)
        self._turns.submit(owner, self._answer(event, inputs[latents].copy(), sender))

    def finalize(self) -> None:
        """Finish running requests."""
        self._turns.close()

    def _stop(self, request_id: str) -> None:
        while len(self._cancelled) >= _REMEMBER_AT_MOST:
            del self._cancelled[next(iter(self._cancelled))]
        self._cancelled[request_id] = None

    def _answer(self, event: Event, latents: Float32, sender: Any) -> Iterator[None]:
        """Send the responses of an event; each iteration sends one."""
        began, failed = time.monotonic(), {}
        try:
            if event.video is not None and latents.shape[1] > 1:
                yield from self._begin(event, sender)
            for answer, last in self._responses(event, latents):
                self._check(event, sender)
                if last:
                    self._release(event)
                send(sender, None if event.silent else pack(answer), last)
                yield
        except Exception as error:
            self._give_up(event)
            send(sender, failure(error), last=True)
            failed = {"outcome": as_request_error(error).code, "error": str(error)}
        finally:
            if event in self._videos:
                self._videos.remove(event)
        if event.record is not None:
            decoding = {"decoding_ms": 1000 * (time.monotonic() - began)}
            log.write({**event.record, **decoding, **failed})

    def _begin(self, event: Event, sender: Any) -> Iterator[None]:
        """Yield until fewer than ``_AT_ONCE`` videos are ahead of this one."""
        self._videos.append(event)
        while event not in list(self._videos)[:_AT_ONCE]:
            self._check(event, sender)
            yield

    def _check(self, event: Event, sender: Any) -> None:
        """Raise Cancelled if the client cancelled the request or left.

        A model learns only of clients that left before its part began, which is why progress is
        sent to ``decode`` all the time.
        """
        if event.request in self._cancelled:
            del self._cancelled[event.request]
            raise Cancelled("the request was cancelled")
        if sender.is_cancelled():
            raise Cancelled("the client has left")

    def _release(self, event: Event) -> None:
        """Free the video's place in ``denoise`` before its client sees the end and sends more."""
        if event.record is not None and self._family.makes_videos:
            self._tell(DECODED.name, event)

    def _give_up(self, event: Event) -> None:
        """Make ``denoise`` end the request: after an error Triton delivers no more responses."""
        if event.record is None:
            self._tell(CANCEL.name, event)
        if self._family.makes_videos:
            self._tell(DECODED.name, event)

    def _tell(self, name: str, event: Event) -> None:
        tell(f"{self._name}_denoise", {name: self._message(name, event.request)})

    def _message(self, name: str, request_id: str) -> Array:
        if name == DECODED.name:
            return self._signer.sign("decoded", "", request_id)
        return np.asarray([request_id.encode()], np.object_)

    def _responses(self, event: Event, latents: Float32) -> Iterator[tuple[dict[str, Array], bool]]:
        """Each response of an event, and whether it is the last."""
        if not latents.size:
            yield response(self._family, event, None), True
        elif event.video is None:
            yield response(self._family, event, self._picture(latents)), True
        else:
            total = 1 + event.video.frames * (latents.shape[1] - 1)
            for index, frames in sliced_vae.decode(self._run(event.video), latents, event.video):
                told = replace(event, index=index)
                yield response(self._family, told, frames), index + len(frames) == total

    def _picture(self, latents: Float32) -> Array:
        decoder = self._family.decoder
        inputs = {decoder.inputs[0].name: latents[None]}
        outputs = call(self._limit, self._decoder, inputs, decoder.outputs)
        picture: Array = outputs[decoder.outputs[0].name][0]
        return picture

    def _run(self, layout: VideoLayout) -> sliced_vae.Run:
        decoder = self._family.decoder
        caches = with_caches(decoder, layout.decoder_caches).outputs[len(decoder.outputs) :]

        def run(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
            return call(self._limit, self._decoder, inputs, decoder.outputs, caches)

        return run
