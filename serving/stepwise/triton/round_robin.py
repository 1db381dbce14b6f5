"""Runs the jobs of many owners round-robin in one thread."""

import logging
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence

from stepwise.batching.worker import Worker

log = logging.getLogger(__name__)


class RoundRobin(Worker):
    """Runs jobs in one thread. A job is an iterator, and each ``next()`` does one piece of it.

    An owner is a path, such as a client and its request, and all owners' paths have one length.
    Clients take turns, one piece each, and within a client its requests. The jobs of one owner run
    in order. So a long job delays others by at most one piece, and a client with many requests
    delays others no more than one with a single request. A job that raises ends.
    """

    def __init__(self, name: str) -> None:
        self._line = _Line()
        super().__init__(name)

    def submit(self, owner: Sequence[str], job: Iterator[None]) -> None:
        """Queue a job after its owner's other jobs."""
        with self._wake:
            self._line.append(owner, job)
            self._wake.notify()

    def _run(self) -> None:
        while (turn := self._next()) is not None:
            owner, job = turn
            if self._advance(job):
                with self._wake:
                    self._line.pop(owner)

    def _advance(self, job: Iterator[None]) -> bool:
        """Do one piece of a job; true if the job has ended."""
        try:
            return next(job, self) is self
        except Exception:
            log.exception("a job ended with an error")
            return True

    def _next(self) -> tuple[list[str], Iterator[None]] | None:
        """The next owner and its first job; None once closing and out of jobs."""
        with self._wake:
            while not (self._line or self._closing):
                self._wake.wait()
            return self._line.rotate() if self._line else None


class _Line:
    """Members in the order of their turns, each with a line of its own, and jobs of its own."""

    def __init__(self) -> None:
        self._members: OrderedDict[str, _Line] = OrderedDict()
        self._jobs: deque[Iterator[None]] = deque()

    def __bool__(self) -> bool:
        return bool(self._members or self._jobs)

    def append(self, owner: Sequence[str], job: Iterator[None]) -> None:
        """Queue a job after those of its owner."""
        line = self
        for name in owner:
            line = line._members.setdefault(name, _Line())
        line._jobs.append(job)

    def rotate(self) -> tuple[list[str], Iterator[None]]:
        """The next owner and its first job; each member on the path goes to its line's end."""
        line, owner = self, []
        while line._members:
            owner.append(next(iter(line._members)))
            line._members.move_to_end(owner[-1])
            line = line._members[owner[-1]]
        return owner, line._jobs[0]

    def pop(self, owner: Sequence[str]) -> None:
        """Remove the first job of an owner, and members without jobs."""
        if not owner:
            self._jobs.popleft()
            return
        member = self._members[owner[0]]
        member.pop(owner[1:])
        if not member:
            del self._members[owner[0]]
