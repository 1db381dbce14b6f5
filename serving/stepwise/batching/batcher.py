"""Forms a batch at every denoising step and calls the denoiser on it. Starts no threads."""

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from stepwise.batching.active_requests import ActiveRequests, id_in_use
from stepwise.batching.observer import Nobody, Watcher
from stepwise.batching.queue import Queue
from stepwise.batching.request import Float32, Picture, Request
from stepwise.batching.stacking import advance, guide, stack_conditioning, stack_latents
from stepwise.description.errors import ModelFailed, RequestError
from stepwise.description.family import Conditioning

log = logging.getLogger(__name__)

# A progress response costs CPU time in the model, in Triton and in the client. So each picture
# sends at most ten a second, and all pictures together use at most 15 ms per second of each core.
PROGRESS_SECONDS = 0.1
# Waiting requests report too, so that a request whose client left ends, and no proxy ends a silent
# stream.
WAITING_SECONDS = 1.0
PROGRESS_PER_SECOND = 5 * (os.cpu_count() or 1)
DONE = "DONE"

Clock = Callable[[], float]
# latents (rows, channels, height, width), timesteps (rows,), conditioning -> prediction
Predict = Callable[[Float32, Float32, Any], Float32]


class Batcher:
    """Denoises requests in a running batch; a new request joins at the next step.

    A RequestError from ``predict`` becomes the response to each request in that batch. At most
    ``capacity`` pictures run or wait. ``clock`` gives monotonic seconds. Each request that
    ``submit`` accepts gets exactly one final response, its last event or an error, on the thread
    that calls ``step``. With ``held``, finished requests count against the capacity until
    ``release``, because videos still have to be decoded. ``prepare`` converts conditioning once for
    all calls with the same pictures.
    """

    def __init__(
        self,
        predict: Predict,
        capacity: int,
        watcher: Watcher | None = None,
        clock: Clock = time.monotonic,
        *,
        held: bool = False,
        prepare: Callable[[Conditioning], Mapping[str, Any]] = dict,
    ) -> None:
        self._predict = predict
        self._clock = clock
        self._watcher = watcher or Nobody()
        self._queue = Queue(capacity)
        self._active = ActiveRequests()
        # Guards the queue and the active requests: other threads submit and cancel during a step.
        self._lock = threading.Lock()
        self._held: set[str] | None = set() if held else None
        self._step_seconds = 0.0
        self._next_progress = 0.0
        self._members: list[Picture] = []
        self._prepare = prepare
        self._conditioning: Mapping[str, Any] = {}

    def __len__(self) -> int:
        with self._lock:
            return len(self._queue)

    def submit(self, request: Request) -> None:
        """Queue a request; its responses go to its ``send`` and ``fail``.

        Raises Unavailable if the queue is full, InvalidRequest if its ID is in use, Cancelled if
        its cancellation came first, and Expired if its deadline has passed.
        """
        with self._lock:
            now = self._clock()
            if self._held and request.id in self._held:
                raise id_in_use(request.id)
            self._queue.check(request, len(self._held or ()))
            self._active.check(request, now)
            self._queue.submit(request, now)
            self._active.enter(request)

    @property
    def occupied(self) -> int:
        """The pictures that count against the capacity."""
        with self._lock:
            return len(self._queue) + len(self._held or ())

    def cancel(self, request_id: str) -> bool:
        """Stop a request before its next step, or refuse it on arrival if it is not active yet.

        False if the request is finished and held: the caller must then cancel its decoding.
        """
        with self._lock:
            if self._held and request_id in self._held:
                return False
            self._active.cancel(request_id, self._clock())
            return True

    def stop(self, request_id: str) -> None:
        """Stop a request before its next step, if it is active."""
        with self._lock:
            self._active.stop(request_id)

    def release(self, request_id: str) -> None:
        """Stop counting a held request against the capacity.

        A decoder that gives up may say so before the last step of its request is finished.
        """
        with self._lock:
            if self._held is not None and not self._active.release(request_id):
                self._held.discard(request_id)

    def present(self) -> list[Request]:
        """The requests without a final response, in order of arrival."""
        with self._lock:
            return self._active.present()

    def standing(self) -> tuple[Counter[str], Counter[str]]:
        """The numbers of running and of waiting pictures, by resolution."""
        with self._lock:
            running, waiting = (
                Counter(picture.request.settings.resolution for picture in pictures)
                for pictures in (self._queue.running(), self._queue.waiting())
            )
        return running, waiting

    def step(self) -> None:
        """End cancelled and expired requests, then make one denoiser call for the next batch."""
        self._sweep()
        now = self._clock()
        with self._lock:
            batch = self._queue.next_batch(now)
        started = [picture for picture in batch if self._start(picture, now)]
        # A picture that fails to start ends its whole request, other pictures included.
        pictures = [picture for picture in started if picture.request in self._active]
        if not pictures:
            return
        try:
            self._move(pictures, now)
        except Exception as error:
            log.exception("a batch of %d pictures failed", len(pictures))
            for picture in pictures:
                self._fail(picture.request, _as_request_error(error))
            return
        self._step_seconds = self._clock() - now
        self._watcher.stepped(pictures, self._step_seconds)
        present = [picture for picture in pictures if picture.request in self._active]
        for picture in present:
            if picture.finished or picture.denoised is not None:
                self._report(picture)
        self._tell([picture for picture in present if not picture.finished])
        if not len(self):
            # An idle pipeline keeps no request in memory.
            self._members, self._conditioning = [], {}

    def abandon(self, error: RequestError) -> None:
        """End every request with an error."""
        for request in self.present():
            self._fail(request, error)

    def _sweep(self) -> None:
        """End the cancelled and the expired requests."""
        with self._lock:
            stopped = self._active.stopped(self._clock())
        for request, error in stopped:
            self._fail(request, error)

    def _start(self, picture: Picture, now: float) -> bool:
        """Draw a new picture's noise; on failure, end only its request and return false."""
        try:
            if picture.started is None:
                picture.start(now)
        except Exception as error:
            log.exception("a picture could not be started")
            self._fail(picture.request, _as_request_error(error))
            return False
        return True

    def _move(self, pictures: list[Picture], now: float) -> None:
        """Advance pictures by a row; only pictures with a non-finite prediction fail."""
        guided = self._guided(pictures)
        with self._lock:
            self._active.stepped(pictures, now)
        finite = [bool(np.isfinite(each).all()) for each in guided]
        for picture, prediction, good in zip(pictures, guided, finite, strict=True):
            if good:
                advance(picture, prediction, sum(finite))
            else:
                self._fail(picture.request, _not_finite(picture))

    def _guided(self, pictures: list[Picture]) -> list[Float32]:
        """Call the denoiser once and return each picture's guided prediction."""
        if pictures != self._members:
            self._members = pictures
            self._conditioning = self._prepare(stack_conditioning(pictures))
        latents, timesteps = stack_latents(pictures)
        prediction = self._predict(latents, timesteps, self._conditioning)
        if prediction.shape != latents.shape:
            raise ModelFailed(
                f"denoising failed: the prediction has shape {list(prediction.shape)}, where the "
                f"latents have {list(latents.shape)}"
            )
        return guide(pictures, prediction)

    def _report(self, picture: Picture) -> None:
        """Send a result, a preview or progress."""
        picture.told = now = self._clock()
        picture.tellings += 1
        event, latents = picture.answer(now)
        summary = None
        if picture.finished:
            with self._lock:
                self._queue.remove([picture])
                if self._active.finished(picture.request):
                    if self._held is not None and not self._active.released(picture.request):
                        self._held.add(picture.request.id)
                    summary = self._active.leave(picture.request, DONE, now)
        if summary is not None:
            self._watcher.ended(picture.request, summary)
        picture.request.send(event, latents, summary)

    def _tell(self, pictures: list[Picture]) -> None:
        """Send due progress of running and waiting pictures, the least recently updated first.

        Of a request that waits as a whole, the first picture reports.
        """
        now = self._clock()
        with self._lock:
            waiting = [each for each in self._queue.waiting() if each.index == 0]
        due = [picture for picture in pictures if now >= picture.told + PROGRESS_SECONDS]
        due += [picture for picture in waiting if now >= picture.told + WAITING_SECONDS]
        for picture in sorted(due, key=lambda picture: (picture.told, picture.tellings)):
            if now < self._next_progress:
                return
            # After a long step, catch up on the progress that was due during it.
            earliest = max(self._next_progress, now - self._step_seconds)
            self._next_progress = earliest + 1 / PROGRESS_PER_SECOND
            self._report(picture)

    def _fail(self, request: Request, error: RequestError) -> None:
        """End a request with an error, unless it already has its final response."""
        with self._lock:
            summary = self._active.leave(request, error.code, self._clock())
            self._queue.remove_request(request)
        if summary is not None:
            self._watcher.ended(request, summary)
            request.fail(error, summary)


def _as_request_error(error: Exception) -> RequestError:
    if isinstance(error, RequestError):
        return error
    return RequestError(f"denoising failed: {error!r}; the server keeps running")


def _not_finite(picture: Picture) -> ModelFailed:
    return ModelFailed(
        f"the denoiser returned numbers that are not finite at step {picture.row + 1} of "
        f"{len(picture.request.table)}: the request's embeddings are not finite, or the model "
        "overflows in its precision (export it with --precision fp32 to check)"
    )
