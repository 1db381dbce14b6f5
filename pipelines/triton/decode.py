"""``<name>_decode``: latents in, pictures out, or clips slice by slice; progress passes through."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from pipelines import PIPELINES, clips, request_log
from pipelines.caches import with_caches
from pipelines.decode import Float32, response
from pipelines.events import Event
from pipelines.fields import Array
from pipelines.manifest import ClipLayout
from pipelines.spec import DECODED, EVENT
from pipelines.triton.wire import (
    as_request_error,
    call,
    failure,
    pack,
    parameter,
    send,
    tell,
    unpack,
)
from pipelines.turns import Turns


class Decode:
    """A request's events keep their order; requests take turns, a picture or a slice each."""

    def initialize(self, args: dict[str, str]) -> None:
        """Answer in one thread."""
        self._name = parameter(args, "name")
        self._pipeline = PIPELINES[parameter(args, "pipeline")]
        self._decoder = f"{self._name}_{self._pipeline.decoder.name}"
        self._turns = Turns("decode")

    def execute(self, requests: list[Any]) -> None:
        """Line up events and their latents."""
        for request in requests:
            inputs, sender = unpack(request), request.get_response_sender()
            event = Event.from_json(inputs[EVENT.name][0])
            latents = inputs[self._pipeline.latents.name].copy()
            self._turns.submit(request.request_id(), self._answer(event, latents, sender))

    def finalize(self) -> None:
        """Finish what is under way."""
        self._turns.close()

    def _answer(self, event: Event, latents: Float32, sender: Any) -> Iterator[None]:
        """Send what becomes of an event, one response a step."""
        began, failed = time.monotonic(), {}
        try:
            for answer, last in self._responses(event, latents):
                if last:
                    self._release(event)
                send(sender, pack(answer), last)
                yield
        except Exception as error:
            self._release(event)
            send(sender, failure(error), last=True)
            failed = {"outcome": as_request_error(error).code, "error": str(error)}
        if event.record is not None:
            decoding = {"decoding_ms": 1000 * (time.monotonic() - began)}
            request_log.write({**event.record, **decoding, **failed})

    def _release(self, event: Event) -> None:
        """Have ``denoise`` let go of a clip at its end, before its caller can ask for another."""
        if event.record is not None and self._pipeline.makes_clips:
            done = np.asarray([event.record["id"].encode()], np.object_)
            tell(f"{self._name}_denoise", {DECODED.name: done})

    def _responses(self, event: Event, latents: Float32) -> Iterator[tuple[dict[str, Array], bool]]:
        """Each response, and whether it is the event's last."""
        if not latents.size:
            yield response(self._pipeline, event, None), True
        elif event.clip is None:
            yield response(self._pipeline, event, self._picture(latents)), True
        else:
            total = 1 + event.clip.frames * (latents.shape[1] - 1)
            for index, frames in clips.decode(self._run(event.clip), latents, event.clip):
                told = replace(event, index=index)
                yield response(self._pipeline, told, frames), index + len(frames) == total

    def _picture(self, latents: Float32) -> Array:
        decoder = self._pipeline.decoder
        inputs = {decoder.inputs[0].name: latents[None]}
        pictures = call(self._decoder, inputs, decoder.outputs)[decoder.outputs[0].name]
        picture: Array = pictures[0]
        return picture

    def _run(self, layout: ClipLayout) -> clips.Run:
        decoder = self._pipeline.decoder
        caches = with_caches(decoder, layout.decoder_caches).outputs[len(decoder.outputs) :]

        def run(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
            return call(self._decoder, inputs, decoder.outputs, caches)

        return run
