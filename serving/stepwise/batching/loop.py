"""The thread that steps a batcher while there is work."""

import logging
from collections.abc import Callable

from stepwise.batching.batcher import Batcher
from stepwise.batching.request import Request
from stepwise.batching.worker import Worker
from stepwise.description.errors import Unavailable

log = logging.getLogger(__name__)


class Loop(Worker):
    """Starts a thread that steps ``batcher`` until ``close``.

    If the thread dies of an exception, every request gets an error and then ``died`` is called.
    """

    def __init__(self, batcher: Batcher, died: Callable[[], None] = lambda: None) -> None:
        self._batcher = batcher
        self._died = died
        super().__init__("denoise")

    def submit(self, request: Request) -> None:
        """Queue a request. Raises as ``Batcher.submit`` does, and Unavailable when closing."""
        with self._wake:
            self._require_open()
            self._batcher.submit(request)
            self._wake.notify()

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
