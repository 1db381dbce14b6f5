"""Decodes latents to pictures or slices of videos over BLS, and sends a request's responses."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

from stepwise.description.errors import Cancelled, RequestError
from stepwise.description.family import Family
from stepwise.description.fields import Array
from stepwise.request import log
from stepwise.request.events import Event
from stepwise.request.response import Float32, response
from stepwise.triton.bridge import Graphs, as_request_error, pack
from stepwise.triton.reply import Reply
from stepwise.triton.round_robin import RoundRobin
from stepwise.video import sliced_vae

# Videos of several slices decoded at the same time; the caches of a large one take gigabytes.
_AT_ONCE = 2
# A cancellation that arrives after the last slice leaves its ID behind, so the IDs are limited.
_REMEMBER_AT_MOST = 1000


class Decoding:
    """Decodes each request's events in order, one picture or slice at a time, in one thread.

    Peers take turns, within a peer its clients, and within a client its requests. Only a few videos
    are decoded at a time, and later ones wait for one to end. Single pictures, previews and
    progress do not wait. ``stop`` gets the ID of a request that failed here or that its client
    left, ``release`` that of a request without further responses.
    """

    def __init__(
        self,
        family: Family,
        graphs: Graphs,
        stop: Callable[[str], None],
        release: Callable[[str], None],
    ) -> None:
        self._family = family
        self._graphs = graphs
        self._stop = stop
        self._release = release
        self._cancelled: dict[str, None] = {}
        self._lock = threading.Lock()
        self._videos: deque[Event] = deque()
        self._turns = RoundRobin("decode")

    def submit(self, event: Event, latents: Float32 | None, reply: Reply) -> None:
        """Queue the responses of an event; ``latents`` are those of a preview or a result."""
        owner = (*event.member, event.request)
        self._turns.submit(owner, self._answer(event, latents, reply))

    def fail(self, owner: tuple[str, ...], error: RequestError, reply: Reply) -> None:
        """Queue an error behind the responses of the same request.

        ``owner`` is its peer, its client and its ID.
        """
        self._turns.submit(owner, _fail(error, reply))

    def cancel(self, request_id: str) -> None:
        """Stop decoding a request."""
        with self._lock:
            while len(self._cancelled) >= _REMEMBER_AT_MOST:
                del self._cancelled[next(iter(self._cancelled))]
            self._cancelled[request_id] = None

    def close(self, seconds: float | None = None) -> None:
        """Finish the requests that are there, for at most ``seconds``, then end the thread."""
        self._turns.close(seconds)

    def _answer(self, event: Event, latents: Float32 | None, reply: Reply) -> Iterator[None]:
        """Send the responses of an event; each iteration sends one."""
        began, ended = time.monotonic(), event.record is not None
        if reply.closed:
            # An earlier event failed, which ended the request.
            self._log(event, began, reply.error)
            return
        try:
            if event.video is not None and latents is not None and latents.shape[1] > 1:
                yield from self._begin(event, reply)
            for answer, last in self._responses(event, latents):
                self._check(event, reply)
                if last and ended:
                    # Before its client sees the end and sends more.
                    self._log(event, began, None)
                    self._release(event.request)
                if not event.silent:
                    reply.send(pack(answer), final=last and ended)
                yield
        except Exception as error:
            refused = as_request_error(error)
            self._log(event, began, refused)
            self._stop(event.request)
            self._release(event.request)
            reply.fail(refused)
        finally:
            if event in self._videos:
                self._videos.remove(event)

    def _begin(self, event: Event, reply: Reply) -> Iterator[None]:
        """Yield until fewer than ``_AT_ONCE`` videos are ahead of this one."""
        self._videos.append(event)
        while event not in list(self._videos)[:_AT_ONCE]:
            self._check(event, reply)
            yield

    def _check(self, event: Event, reply: Reply) -> None:
        """Raise Cancelled if the client cancelled the request or left."""
        with self._lock:
            cancelled = event.request in self._cancelled
            self._cancelled.pop(event.request, None)
        if cancelled:
            raise Cancelled("the request was cancelled")
        if reply.left():
            raise Cancelled("the client has left")

    def _log(self, event: Event, began: float, error: RequestError | None) -> None:
        """Write a request's line of the log with its last event."""
        if event.record is not None:
            failed = {} if error is None else {"outcome": error.code, "error": str(error)}
            decoding = {"decoding_ms": 1000 * (time.monotonic() - began)}
            log.write({**event.record, **decoding, **failed})

    def _responses(
        self, event: Event, latents: Float32 | None
    ) -> Iterator[tuple[dict[str, Array], bool]]:
        """Each response of an event, and whether it is the last."""
        if latents is None:
            yield response(self._family, event, None), True
        elif event.video is None:
            yield response(self._family, event, self._picture(latents)), True
        else:
            total = 1 + event.video.frames * (latents.shape[1] - 1)
            run = self._graphs.slices(self._family.decoder, event.video.decoder_caches)
            for index, frames in sliced_vae.decode(run, latents, event.video):
                told = replace(event, index=index)
                yield response(self._family, told, frames), index + len(frames) == total

    def _picture(self, latents: Float32) -> Array:
        decoder = self._family.decoder
        outputs = self._graphs.run(decoder, {decoder.inputs[0].name: latents[None]})
        picture: Array = outputs[decoder.outputs[0].name][0]
        return picture


def _fail(error: RequestError, reply: Reply) -> Iterator[None]:
    """A job that sends an error."""
    reply.fail(error)
    yield
