"""The thread that steps a batcher while there is work."""

import logging
import threading
from collections.abc import Callable

from stepwise.batching.batcher import Batcher
from stepwise.batching.request import Request
from stepwise.description.errors import Unavailable

log = logging.getLogger(__name__)


class Loop:
    """Starts a thread that steps ``batcher`` until ``close``.

    If the thread dies of an exception, every request gets an error and then ``died`` is called.
    """

    def __init__(self, batcher: Batcher, died: Callable[[], None] = lambda: None) -> None:
        self._batcher = batcher
        self._died = died
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="denoise", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Queue a request. Raises as ``Batcher.submit`` does, and Unavailable when closing."""
        with self._wake:
            if self._closing:
                raise Unavailable("the server is stopping; try again after it restarts")
            self._batcher.submit(request)
            self._wake.notify()

    def close(self) -> None:
        """Finish all running and waiting requests, then end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._wait():
                self._batcher.step()
        except BaseException as error:
            log.critical("the denoising thread died", exc_info=error)
            try:
                with self._wake:
                    self._closing = True
                self._batcher.abandon(
                    Unavailable(f"denoising has stopped ({error!r}); the server must restart")
                )
            finally:
                self._died()

    def _wait(self) -> bool:
        """Wait for work; false once the loop is closing and no work is left."""
        with self._wake:
            while not (len(self._batcher) or self._closing):
                self._wake.wait()
            return len(self._batcher) > 0
