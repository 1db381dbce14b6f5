"""Finds the requests whose callers are gone, beside the steps and not between them."""

import threading

from stepwise.batching.batcher import Batcher

# To ask Triton takes a message to another process and back, and as long as a tenth of a small
# model's step; one request after another is asked, in turn.
ASK_SECONDS = 0.05


class Disconnects:
    """Asks the requests of ``batcher`` in turn whether their callers have hung up."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._next = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hang-ups", daemon=True)

    def start(self) -> None:
        """Ask from now on, in a thread, until ``close``."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._thread.join()

    def ask(self) -> None:
        """Ask the next request, and cancel it if its caller is gone."""
        present = self._batcher.present()
        if present:
            self._next = (self._next + 1) % len(present)
            request = present[self._next]
            if request.disconnected():
                self._batcher.cancel(request.id)

    def _run(self) -> None:
        while not self._closing.wait(ASK_SECONDS):
            self.ask()
