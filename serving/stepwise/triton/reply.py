"""The responses of one request."""

import threading
from collections.abc import Callable
from typing import Any

import triton_python_backend_utils as pb_utils

from stepwise.triton.bridge import FINAL, failure, log


class Reply:
    """Sends the responses of one request, of which exactly one is final. Thread-safe.

    ``ended`` is called once, after the final response.
    """

    def __init__(self, sender: Any, ended: Callable[[], None]) -> None:
        self._sender = sender
        self._ended = ended
        self._lock = threading.Lock()
        # Whether the final response was sent; further ones are dropped.
        self.closed = False

    def send(self, answer: Any, final: bool) -> None:
        """Send a response, or with None only the final flag; ignore it if the client has left."""
        with self._lock:
            if self.closed:
                return
            self.closed = final
            try:
                self._deliver(answer, final)
            except pb_utils.TritonModelException as error:
                log.info("cannot deliver a response: %s", error)
        if final:
            self._ended()

    def fail(self, error: Exception) -> None:
        """Send an error as the final response."""
        self.send(failure(error), final=True)

    def left(self) -> bool:
        """Whether the client has left."""
        return bool(self._sender.is_cancelled())

    def _deliver(self, answer: Any, final: bool) -> None:
        if answer is None:
            self._sender.send(flags=FINAL)
        else:
            self._sender.send(answer, flags=FINAL if final else 0)
