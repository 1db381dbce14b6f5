"""The thread that hands admitted requests to workers and ends late ones."""

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
    """Calls ``run(job)`` for admitted requests in ``workers``, ``refuse(job, error)`` for others.

    Neither may raise. ``occupied`` returns the pictures that are in the denoiser,
    ``changed`` gets the number of requests here whenever the thread has nothing else to do.
    """

    def __init__(
        self,
        admission: Admission[Job],
        workers: ThreadPoolExecutor,
        occupied: Callable[[], int],
        changed: Callable[[int], None],
        run: Callable[[Job], None],
        refuse: Callable[[Job, RequestError], None],
    ) -> None:
        self._admission = admission
        self._workers = workers
        self._occupied = occupied
        self._changed = changed
        self._do = run
        self._refuse = refuse
        super().__init__("door")

    def submit(self, job: Job, settings: Settings) -> None:
        """Queue a request. Raises as ``Admission.submit``, and Unavailable when closing."""
        with self._wake:
            self._require_open()
            self._admission.submit(job, settings, self._occupied(), time.monotonic())
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                late = self._admission.expired(time.monotonic())
                job = self._admission.take(time.monotonic())
                if job is None and not late:
                    if self._closing and not len(self._admission):
                        return
                    self._changed(len(self._admission))
                    seconds = self._admission.deadline - time.monotonic()
                    self._wake.wait(min(seconds, threading.TIMEOUT_MAX))
                    continue
            for each, error in late:
                self._refuse(each, error)
            if job is not None:
                self._workers.submit(self._work, job)

    def _work(self, job: Job) -> None:
        try:
            self._do(job)
        finally:
            with self._wake:
                self._admission.finish(job)
                self._wake.notify()
