"""The thread that keeps a batcher stepping while there is work."""

import threading

from pipelines.errors import Unavailable
from pipelines.inflight.batcher import Batcher
from pipelines.inflight.request import Request


class Loop:
    """Steps ``batcher`` in a thread of its own, from now until ``close``."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="denoise", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Line up a request; raises what ``Batcher.submit`` does, and Unavailable when closing."""
        with self._wake:
            if self._closing:
                raise Unavailable("the server is stopping; try again when it is back")
            self._batcher.submit(request)
            self._wake.notify()

    def close(self) -> None:
        """Finish what runs and waits, then end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while self._wait():
            self._batcher.step()

    def _wait(self) -> bool:
        """Wait until there is something to do; false when there never will be again."""
        with self._wake:
            while not (len(self._batcher) or self._closing):
                self._wake.wait()
            return len(self._batcher) > 0
