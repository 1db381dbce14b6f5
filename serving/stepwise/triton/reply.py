"""The responses of one request."""

import threading
import time
from collections.abc import Callable
from typing import Any

import triton_python_backend_utils as pb_utils

from stepwise.description.errors import RequestError
from stepwise.triton.bridge import FINAL, as_request_error, failure, log

# A question whether the client is still there is a message between processes.
_ASK_SECONDS = 0.25


class Reply:
    """Sends the responses of one request, of which exactly one is final. Thread-safe.

    ``ended`` is called once, after the final response.
    """

    def __init__(self, sender: Any, ended: Callable[[], None]) -> None:
        self._sender = sender
        self._ended = ended
        self._lock = threading.Lock()
        self._asked = time.monotonic()
        # Whether the final response was sent; further ones are dropped.
        self.closed = False
        # The error that was the final response.
        self.error: RequestError | None = None

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
            finally:
                if final:
                    self._ended()

    def fail(self, error: Exception) -> None:
        """Send an error as the final response."""
        told = as_request_error(error)
        if not self.closed:
            self.error = told
        self.send(failure(told), final=True)

    def left(self) -> bool:
        """Whether the client has left, as far as it is known from the last quarter of a second.

        Triton is never asked after the final response: the request is gone there.
        """
        with self._lock:
            now = time.monotonic()
            if self.closed or now < self._asked + _ASK_SECONDS:
                return False
            self._asked = now
            return bool(self._sender.is_cancelled())

    def _deliver(self, answer: Any, final: bool) -> None:
        if answer is None:
            self._sender.send(flags=FINAL)
        else:
            self._sender.send(answer, flags=FINAL if final else 0)
