"""Hands admitted requests to workers, and ends late ones in a thread."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic

from stepwise.batching.admission import Admission, Job
from stepwise.batching.worker import Worker
from stepwise.description.errors import RequestError
from stepwise.description.settings import Settings


class Door(Worker, Generic[Job]):
    """Calls ``run(job)`` in ``workers`` for each admitted request.

    Calls ``refuse(job, error)`` for those whose deadlines have passed.

    Neither may raise. ``occupied`` returns the pictures that are in the denoiser.
    """

    def __init__(
        self,
        admission: Admission[Job],
        workers: ThreadPoolExecutor,
        occupied: Callable[[], int],
        run: Callable[[Job], None],
        refuse: Callable[[Job, RequestError], None],
    ) -> None:
        self._admission = admission
        self._workers = workers
        self._occupied = occupied
        self._do = run
        self._refuse = refuse
        super().__init__("door")

    def submit(self, job: Job, settings: Settings) -> None:
        """Queue a request. Raises as ``Admission.submit``, and Unavailable when closing."""
        with self._wake:
            self._require_open()
            now = time.monotonic()
            self._admission.submit(job, settings, self._occupied(), now)
            if (taken := self._admission.take(now)) is None:
                # The thread must know the deadline of a request that waits.
                self._wake.notify()
            else:
                self._workers.submit(self._work, taken)

    def _run(self) -> None:
        while True:
            with self._wake:
                late = self._admission.expired(time.monotonic())
                if not late:
                    if self._closing and not len(self._admission):
                        return
                    seconds = self._admission.deadline - time.monotonic()
                    self._wake.wait(min(seconds, threading.TIMEOUT_MAX))
                    continue
            for job, error in late:
                self._refuse(job, error)

    def _work(self, job: Job | None) -> None:
        """Run a job, then those that wait."""
        while job is not None:
            self._do(job)
            with self._wake:
                self._admission.finish(job)
                job = self._admission.take(time.monotonic())
                if self._closing:
                    self._wake.notify()
