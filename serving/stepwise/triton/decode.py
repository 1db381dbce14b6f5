"""``<name>_decode``: latents in, pictures or slices of videos out; progress passes through."""

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
from stepwise.request import log
from stepwise.request.events import Event, cancelled
from stepwise.request.response import Float32, response
from stepwise.triton.bridge import (
    FINAL,
    as_request_error,
    call,
    failure,
    pack,
    parameter,
    send,
    tell,
    unpack,
)
from stepwise.triton.round_robin import RoundRobin
from stepwise.video import sliced_vae

# Videos of several slices that are decoded at once. Each has gigabytes of caches if it is large.
_AT_ONCE = 2
# A cancellation may come just after the last slice; its id is then of no use.
_REMEMBER_AT_MOST = 1000


class Decode:
    """A request's events keep their order; requests take turns, a picture or a slice each.

    Only the first few videos have begun; the others wait for one of them to end, which single
    pictures, previews and progress do not.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Answer in one thread."""
        self._name = parameter(args, "name")
        self._family = FAMILIES[parameter(args, "pipeline")]
        self._decoder = f"{self._name}_{self._family.decoder.name}"
        self._cancelled: dict[str, None] = {}
        self._videos: deque[Event] = deque()
        self._turns = RoundRobin("decode")

    def execute(self, requests: list[Any]) -> None:
        """Line up events and their latents."""
        for request in requests:
            inputs, sender = unpack(request), request.get_response_sender()
            told = inputs[EVENT.name][0]
            if (stopped := cancelled(told)) is not None:
                self._stop(stopped)
                sender.send(flags=FINAL)
                continue
            event = Event.from_json(told)
            latents = inputs[self._family.latents.name].copy()
            self._turns.submit(request.request_id(), self._answer(event, latents, sender))

    def finalize(self) -> None:
        """Finish what is under way."""
        self._turns.close()

    def _stop(self, request_id: str) -> None:
        while len(self._cancelled) >= _REMEMBER_AT_MOST:
            del self._cancelled[next(iter(self._cancelled))]
        self._cancelled[request_id] = None

    def _answer(self, event: Event, latents: Float32, sender: Any) -> Iterator[None]:
        """Send what becomes of an event, one response a step."""
        began, failed = time.monotonic(), {}
        try:
            if event.video is not None and latents.shape[1] > 1:
                yield from self._begin(event)
            for answer, last in self._responses(event, latents):
                self._check(event)
                if last:
                    self._release(event)
                send(sender, pack(answer), last)
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

    def _begin(self, event: Event) -> Iterator[None]:
        """Pass until few enough videos are ahead."""
        self._videos.append(event)
        while event not in list(self._videos)[:_AT_ONCE]:
            self._check(event)
            yield

    def _check(self, event: Event) -> None:
        if event.request in self._cancelled:
            del self._cancelled[event.request]
            raise Cancelled("the request was cancelled")

    def _release(self, event: Event) -> None:
        """Have ``denoise`` let go of a video at its end, before its caller can ask for another."""
        if event.record is not None and self._family.makes_videos:
            self._tell(DECODED.name, event)

    def _give_up(self, event: Event) -> None:
        """Have ``denoise`` end the request, of which Triton passes on nothing after an error."""
        if event.record is None:
            self._tell(CANCEL.name, event)
        if self._family.makes_videos:
            self._tell(DECODED.name, event)

    def _tell(self, name: str, event: Event) -> None:
        request = np.asarray([event.request.encode()], np.object_)
        tell(f"{self._name}_denoise", {name: request})

    def _responses(self, event: Event, latents: Float32) -> Iterator[tuple[dict[str, Array], bool]]:
        """Each response, and whether it is the event's last."""
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
        pictures = call(self._decoder, inputs, decoder.outputs)[decoder.outputs[0].name]
        picture: Array = pictures[0]
        return picture

    def _run(self, layout: VideoLayout) -> sliced_vae.Run:
        decoder = self._family.decoder
        caches = with_caches(decoder, layout.decoder_caches).outputs[len(decoder.outputs) :]

        def run(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
            return call(self._decoder, inputs, decoder.outputs, caches)

        return run
