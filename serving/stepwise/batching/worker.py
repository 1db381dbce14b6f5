"""A thread that works until it is closed."""

import threading

from stepwise.description.errors import stopping


class Worker:
    """Runs ``_run`` in a thread, which waits for work on ``_wake``.

    ``_wake`` also guards the work. ``_run`` returns once ``_closing`` is set and no work is left.
    Subclasses call ``__init__`` last, because it starts the thread.
    """

    def __init__(self, name: str) -> None:
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self, seconds: float | None = None) -> None:
        """Finish the work that is there, then end the thread; wait at most ``seconds``."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(seconds)

    def _require_open(self) -> None:
        """Raise Unavailable when closing."""
        if self._closing:
            raise stopping()

    def _run(self) -> None:
        raise NotImplementedError
