"""Hands admitted requests to workers, and ends late ones in a thread."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic

from stepwise.batching.admission import Admission, Job
from stepwise.batching.worker import Worker
from stepwise.description.errors import RequestError
from stepwise.description.settings import Settings

log = logging.getLogger(__name__)

CHECK_SECONDS = 1.0


class Door(Worker, Generic[Job]):
    """Calls ``run(job)`` in ``workers`` for each admitted request.

    Calls ``refuse(job, error)`` for those that wait when their deadlines pass or when
    ``problem(job)`` returns an error, which is asked once a second. ``occupied`` returns the
    pictures that are in the denoiser.
    """

    def __init__(
        self,
        admission: Admission[Job],
        workers: ThreadPoolExecutor,
        occupied: Callable[[], int],
        run: Callable[[Job], None],
        problem: Callable[[Job], RequestError | None],
        refuse: Callable[[Job, RequestError], None],
    ) -> None:
        self._admission = admission
        self._workers = workers
        self._occupied = occupied
        self._do = run
        self._problem = problem
        self._refuse = refuse
        super().__init__("door")

    def submit(self, job: Job, settings: Settings) -> None:
        """Queue a request. Raises as ``Admission.submit``, and Unavailable when closing."""
        with self._wake:
            self._require_open()
            now = time.monotonic()
            # A request on its way to the denoiser counts twice for a moment.
            self._admission.submit(job, settings, self._occupied(), now)
            if (taken := self._admission.take(now)) is None:
                # The thread must know of a request that waits.
                self._wake.notify()
            else:
                self._workers.submit(self._work, taken)

    def _run(self) -> None:
        while True:
            with self._wake:
                late = self._admission.expired(time.monotonic())
                waiting = self._admission.waiting()
                if not late:
                    if self._closing and not len(self._admission):
                        return
                    seconds = self._admission.deadline - time.monotonic()
                    most = CHECK_SECONDS if waiting else threading.TIMEOUT_MAX
                    self._wake.wait(min(seconds, most))
            for job, error in late:
                self._end(job, error)
            for job in waiting:
                problem = self._asked(job)
                if problem is not None and self._dropped(job):
                    self._end(job, problem)

    def _dropped(self, job: Job) -> bool:
        with self._wake:
            return self._admission.drop(job)

    def _asked(self, job: Job) -> RequestError | None:
        try:
            return self._problem(job)
        except Exception:
            log.exception("a waiting request could not be checked")
            return None

    def _end(self, job: Job, error: RequestError) -> None:
        try:
            self._refuse(job, error)
        except Exception:
            log.exception("a request could not be refused")

    def _work(self, job: Job | None) -> None:
        """Run a job, then those that wait."""
        while job is not None:
            try:
                self._do(job)
            except Exception:
                log.exception("a request could not be encoded or refused")
            with self._wake:
                self._admission.finish(job)
                job = self._admission.take(time.monotonic())
                if self._closing:
                    self._wake.notify()
