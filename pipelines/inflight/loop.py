"""The thread that owns the running batch: one denoiser call after another."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from pipelines.conditioning import Conditioning
from pipelines.errors import RequestError, Unavailable
from pipelines.inflight.batch import advance, stack_conditioning, stack_latents
from pipelines.inflight.queue import Queue
from pipelines.inflight.request import Float32, Picture, Request
from pipelines.samplers import X

log = logging.getLogger(__name__)

# Telling progress costs a small model as much as half a step; nobody sees more than this.
PROGRESS_SECONDS = 0.05

# latents (slots, channels, height, width), timesteps (slots,), conditioning -> prediction
Predict = Callable[[Float32, Float32, Conditioning], Float32]


class Loop:
    """Denoises requests as they come; each joins the batch at the next step.

    ``predict`` may raise RequestError, which answers the batch it was called for. ``slots`` is
    the most rows that it is given. ``clock`` gives monotonic seconds. ``died`` is called, once
    every request has its error, should the thread end by an exception of its own.
    """

    def __init__(
        self,
        predict: Predict,
        slots: int,
        clock: Callable[[], float] = time.monotonic,
        died: Callable[[], None] = lambda: None,
    ) -> None:
        self._predict = predict
        self._died = died
        self._clock = clock
        self._queue = Queue(slots)
        self._arrivals: deque[Request] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._members: list[Picture] = []
        self._conditioning: Conditioning = {}
        self._thread = threading.Thread(target=self._run, name="denoise", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Queue a request; its answers come through its own ``send`` and ``fail``."""
        with self._wake:
            if self._closing:
                raise Unavailable("the server is stopping; try again when it is back")
            self._arrivals.append(request)
            self._wake.notify()

    def close(self) -> None:
        """Finish what runs and waits, then end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._admit():
                self._tick()
        except BaseException as error:
            log.critical("the denoising thread died", exc_info=error)
            try:
                self._abandon(error)
            finally:
                self._died()

    def _abandon(self, error: BaseException) -> None:
        """Refuse what comes, and answer what is here with the error that ended the thread."""
        with self._wake:
            self._closing = True
            requests = [*self._queue.requests(), *self._arrivals]
        for request in requests:
            request.fail(Unavailable(f"denoising has stopped ({error!r}); the server must restart"))

    def _admit(self) -> bool:
        """Take in arrivals, waiting for one if nothing runs; false when there is no more to do."""
        with self._wake:
            while not (self._arrivals or len(self._queue) or self._closing):
                self._wake.wait()
            while self._arrivals:
                self._queue.submit(self._arrivals.popleft())
        return len(self._queue) > 0

    def _tick(self) -> None:
        """One denoiser call for the next batch."""
        pictures = self._queue.next_batch()
        try:
            self._advance(pictures)
        except Exception as error:
            log.exception("a batch of %d pictures failed", len(pictures))
            self._fail(pictures, error)
            return
        for picture in pictures:
            self._report(picture)
        self._queue.remove([picture for picture in pictures if picture.finished])

    def _advance(self, pictures: list[Picture]) -> None:
        for picture in pictures:
            if picture.started is None:
                picture.start(self._clock())
        if pictures != self._members:
            self._members, self._conditioning = pictures, stack_conditioning(pictures)
        latents, timesteps = stack_latents(pictures)
        advance(pictures, self._predict(latents, timesteps, self._conditioning))

    def _report(self, picture: Picture) -> None:
        """Send the result, or progress if the last was told long enough ago."""
        now, settings = self._clock(), picture.request.settings
        if not picture.finished and now - picture.told < PROGRESS_SECONDS:
            return
        picture.told = now
        latents = picture.state[X].copy() if picture.finished else None
        last = picture.finished and picture.index == settings.num_images - 1
        picture.request.send(picture.event(now), latents, last)

    def _fail(self, pictures: list[Picture], error: Exception) -> None:
        """Answer every request of a failed batch with the error, once each."""
        if not isinstance(error, RequestError):
            error = RequestError(f"denoising failed: {error!r}; the server goes on")
        for request in {id(picture.request): picture.request for picture in pictures}.values():
            self._queue.remove_request(request)
            request.fail(error)
