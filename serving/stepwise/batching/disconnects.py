"""Cancels requests after their client disconnects, in a thread that does not delay the steps."""

import threading

from stepwise.batching.batcher import Batcher

# A check is a round trip to another process and takes about a tenth of a small model's step, so
# each interval checks one request.
ASK_SECONDS = 0.05


class Disconnects:
    """Checks the active requests of ``batcher`` for disconnected clients, one at a time."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._next = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hang-ups", daemon=True)

    def start(self) -> None:
        """Start a thread that checks requests until ``close``."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._thread.join()

    def ask(self) -> None:
        """Check the next request, and cancel it if its client has disconnected."""
        present = self._batcher.present()
        if present:
            self._next = (self._next + 1) % len(present)
            request = present[self._next]
            if request.disconnected():
                self._batcher.cancel(request.id)

    def _run(self) -> None:
        while not self._closing.wait(ASK_SECONDS):
            self.ask()
