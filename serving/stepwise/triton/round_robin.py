"""Runs the jobs of many owners round-robin in one thread."""

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator

log = logging.getLogger(__name__)


class RoundRobin:
    """Runs jobs in one thread. A job is an iterator, and each ``next()`` does one piece of it.

    The jobs of one owner run in order. Owners take turns, one piece each, so a long job delays
    others by at most one piece. A job that raises ends.
    """

    def __init__(self, name: str) -> None:
        self._jobs: OrderedDict[str, deque[Iterator[None]]] = OrderedDict()
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, owner: str, job: Iterator[None]) -> None:
        """Queue a job after its owner's other jobs."""
        with self._wake:
            self._jobs.setdefault(owner, deque()).append(job)
            self._wake.notify()

    def close(self) -> None:
        """Finish all jobs, then end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while (owner := self._next()) is not None:
            job = self._jobs[owner][0]
            done = self._advance(job)
            with self._wake:
                if done:
                    self._jobs[owner].popleft()
                if not self._jobs[owner]:
                    del self._jobs[owner]

    def _advance(self, job: Iterator[None]) -> bool:
        """Do one piece of a job; true if the job has ended."""
        try:
            return next(job, self) is self
        except Exception:
            log.exception("a job ended with an error")
            return True

    def _next(self) -> str | None:
        """The next owner, moved to the end of the line; None once closing and out of jobs."""
        with self._wake:
            while not (self._jobs or self._closing):
                self._wake.wait()
            if not self._jobs:
                return None
            owner = next(iter(self._jobs))
            self._jobs.move_to_end(owner)
            return owner
