"""State that the Python models of one server share: a key, and the work in each pipeline.

Each model runs in a process of its own, so they share files in a folder that only their user may
read: ``STEPWISE_STATE``, which ``stepwise serve`` sets, or one named after the Triton process.
"""

import os
import secrets
import stat
import struct
import tempfile
from collections.abc import Collection
from pathlib import Path

VARIABLE = "STEPWISE_STATE"
_KEY = "key"
_KEY_BYTES = 32
_COUNT = struct.Struct("<q")
_TIME = struct.Struct("<d")
# The stages that write an ``Occupancy``.
STAGES = ENCODE, DENOISE, DECODE = "encode", "denoise", "decode"


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
            f"{path}: others can read or replace the key of the models in it; set {VARIABLE} to a "
            "folder that only this user may read"
        )
    return path


def key(shared: Path) -> bytes:
    """The key in the folder ``shared``; the first model to ask draws it."""
    path = shared / _KEY
    if not path.exists():
        # Written under another name first, so that no model reads half a key.
        drawn = shared / f"{_KEY}.{os.getpid()}"
        drawn.write_bytes(secrets.token_bytes(_KEY_BYTES))
        try:
            os.link(drawn, path)
        except FileExistsError:
            pass
        finally:
            drawn.unlink()
    return path.read_bytes()


class Occupancy:
    """The work in one stage of a pipeline: its model writes, other processes read.

    ``ENCODE`` counts requests, ``DENOISE`` pictures and ``DECODE`` responses.
    """

    def __init__(self, shared: Path, pipeline: str, stage: str) -> None:
        path = shared / f"{pipeline}.{stage}"
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def write(self, pictures: int) -> None:
        """Replace the number."""
        os.pwrite(self._file, _COUNT.pack(pictures), 0)

    def read(self) -> int:
        """The number, 0 before the first ``write``."""
        data = os.pread(self._file, _COUNT.size, 0)
        return int(_COUNT.unpack(data)[0]) if data else 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Due:
    """When the next running call of a stage must have returned: its model writes.

    Times are in seconds of the clock that ``overdue`` uses.
    """

    def __init__(self, shared: Path, pipeline: str, stage: str) -> None:
        path = shared / _due(pipeline, stage)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def write(self, time: float | None) -> None:
        """Replace the time; None without running calls."""
        os.pwrite(self._file, _TIME.pack(0.0 if time is None else time), 0)


def _due(pipeline: str, stage: str) -> str:
    return f"{pipeline}.{stage}.due"


def overdue(shared: Path, pipelines: Collection[str], now: float) -> str | None:
    """The model whose call of another one should have returned before ``now``, if there is one."""
    for name in pipelines:
        for stage in STAGES:
            try:
                (time,) = _TIME.unpack((shared / _due(name, stage)).read_bytes())
            except (FileNotFoundError, struct.error):
                continue
            if 0 < time < now:
                return f"{name}_{stage}"
    return None


def working(shared: Path, pipelines: Collection[str]) -> bool:
    """Whether a stage of these pipelines has work.

    True for a pipeline that writes no counts: nothing is known of it.
    """
    return any(
        not (shared / f"{name}.{stage}").exists() or _read(shared, name, stage)
        for name in pipelines
        for stage in STAGES
    )


def _read(shared: Path, pipeline: str, stage: str) -> int:
    occupancy = Occupancy(shared, pipeline, stage)
    try:
        return occupancy.read()
    finally:
        occupancy.close()
