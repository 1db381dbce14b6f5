"""The time at which a pipeline's call of a graph must have returned: later, it hangs."""

import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from stepwise.request.shared_state import Due

# The first call of a model has nothing to compare with, and may load kernels.
FIRST_SECONDS = 3600.0
LEAST_SECONDS = 60.0
# A call may take this many times as long as the slowest so far, for the same work.
FACTOR = 20


class CallLimit:
    """Times the calls of one pipeline, and publishes when the next of them must have returned.

    The limit grows with the slowest call so far, and with the square of the work, as attention
    does: a larger picture may be the first of its size. Thread-safe.
    """

    def __init__(
        self,
        shared: Path,
        pipeline: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock`` must be the one that the reader of ``Due`` uses."""
        self._due = Due(shared, pipeline)
        self._clock = clock
        self._slowest: dict[str, tuple[float, int]] = {}
        self._running: dict[_Call, float] = {}
        self._lock = Lock()
        self._due.write(None)

    def calling(self, model: str, work: int) -> "_Call":
        """A context that times a call of ``model`` with ``work`` numbers as inputs."""
        return _Call(self, model, work)

    def _begin(self, call: "_Call") -> None:
        with self._lock:
            call.began = self._clock()
            self._running[call] = call.began + self.seconds(call.model, call.work)
            self._publish()

    def _end(self, call: "_Call") -> None:
        with self._lock:
            del self._running[call]
            took = self._clock() - call.began
            known = self._slowest.get(call.model, (0.0, 1))
            self._slowest[call.model] = max((took, call.work), known)
            self._publish()

    def seconds(self, model: str, work: int) -> float:
        """The seconds that the next call may take."""
        if model not in self._slowest:
            return FIRST_SECONDS
        slowest, known = self._slowest[model]
        return max(LEAST_SECONDS, FACTOR * slowest * max(1.0, work / known) ** 2)

    def _publish(self) -> None:
        self._due.write(min(self._running.values(), default=None))


class _Call:
    """A call that runs within this context."""

    def __init__(self, limit: CallLimit, model: str, work: int) -> None:
        self._limit = limit
        self.model = model
        self.work = work
        self.began = 0.0

    def __enter__(self) -> None:
        self._limit._begin(self)

    def __exit__(self, *_: object) -> None:
        self._limit._end(self)
