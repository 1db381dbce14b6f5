"""The state of a server's pipelines, which ``stepwise serve`` reads.

Each model runs in a process of its own, so they share files in a folder that only their user may
read: ``STEPWISE_STATE``, which ``stepwise serve`` sets, or one named after the Triton process.
"""

import os
import stat
import struct
import tempfile
import threading
from collections.abc import Collection
from pathlib import Path

VARIABLE = "STEPWISE_STATE"
_COUNT = struct.Struct("<q")
_TIME = struct.Struct("<d")
_REQUESTS, _DUE = "requests", "due"


def folder() -> Path:
    """The folder of the server that started this process; created if absent.

    Raises PermissionError if others may read or write it.
    """
    given = os.environ.get(VARIABLE)
    path = Path(given or Path(tempfile.gettempdir(), f"stepwise-{os.getuid()}-{os.getppid()}"))
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
    if not private or found.st_uid != os.getuid():
        raise PermissionError(
            f"{path}: others can read or replace the files of the models in it; set {VARIABLE} to "
            "a folder that only this user may read"
        )
    return path


class OpenRequests:
    """The number of a pipeline's requests without a final response. Thread-safe."""

    def __init__(self, shared: Path, pipeline: str) -> None:
        self._file = _open(shared, pipeline, _REQUESTS)
        self._number = 0
        self._lock = threading.Lock()
        self._add(0)

    def begin(self) -> None:
        """Count a request."""
        self._add(1)

    def end(self) -> None:
        """Count its final response."""
        self._add(-1)

    def _add(self, more: int) -> None:
        # Without the lock an older number could be written last.
        with self._lock:
            self._number += more
            os.pwrite(self._file, _COUNT.pack(self._number), 0)


class Due:
    """When the next running call of a pipeline must have returned.

    Times are in seconds of the clock that ``overdue`` uses.
    """

    def __init__(self, shared: Path, pipeline: str) -> None:
        self._file = _open(shared, pipeline, _DUE)

    def write(self, time: float | None) -> None:
        """Replace the time; None without running calls."""
        os.pwrite(self._file, _TIME.pack(0.0 if time is None else time), 0)


def overdue(shared: Path, pipelines: Collection[str], now: float) -> str | None:
    """A pipeline with a call that should have returned before ``now``, if there is one."""
    for name in pipelines:
        found = _read(shared, name, _DUE, _TIME)
        if found is not None and 0 < found < now:
            return name
    return None


def working(shared: Path, pipelines: Collection[str]) -> bool:
    """Whether one of these pipelines has a request without a final response.

    True for a pipeline that writes no number: nothing is known of it.
    """
    return any(_read(shared, name, _REQUESTS, _COUNT) != 0 for name in pipelines)


def _open(shared: Path, pipeline: str, what: str) -> int:
    return os.open(shared / f"{pipeline}.{what}", os.O_RDWR | os.O_CREAT, 0o600)


def _read(shared: Path, pipeline: str, what: str, form: struct.Struct) -> float | None:
    """The number in a file; None before it is written."""
    try:
        data = (shared / f"{pipeline}.{what}").read_bytes()
    except FileNotFoundError:
        return None
    return float(form.unpack(data)[0]) if data else None
