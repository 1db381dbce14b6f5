"""What a server leaves if its process is killed: processes, shared memory, a temporary folder.

A killed process runs no clean-up. So a shell waits for its end on a pipe, then kills Triton with
its models and removes their shared memory and the folder. If the shell is killed as well, as with a
whole control group, the next server does that.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

_PREFIX = "stepwise-"
_SHARED_MEMORY = Path("/dev/shm")
# In the folder: a file that the server locks while it lives, and the process ID of its Triton.
_LOCK, _TRITON = "lock", "triton"
# Waits until the pipe's other end is closed. Triton's models are in its process group.
_REMOVE = """
read -r _
kill -s KILL -- "-$(cat "$1/triton")"
rm -rf -- "$1"
rm -f -- "/dev/shm/$2"*
"""


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder of one server. At its end, or if this process ends, nothing is left.

    Write the process ID of Triton, which must lead a process group, with ``note``.
    """
    remove_dead()
    with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with _locked(folder), _remover(folder):
            try:
                yield folder
            finally:
                _remove_shared_memory(folder)


def shm_prefix(folder: Path) -> str:
    """The beginning of the names of all shared memory of the server with this folder."""
    return f"{folder.name}-"


def note(folder: Path, triton: int) -> None:
    """Note the process ID of the Triton to kill if this process ends."""
    (folder / _TRITON).write_text(str(triton))


def remove_dead() -> None:
    """Remove what servers of this user left that are not alive."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError), lock.open() as file:
            if os.fstat(file.fileno()).st_uid != os.getuid():
                continue
            # Fails while the server lives, even in another container.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _kill(lock.parent)
            _remove_shared_memory(lock.parent)
            shutil.rmtree(lock.parent, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    # Locked before it has the name that others look for.
    drawn = folder / f"{_LOCK}.new"
    with drawn.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        drawn.rename(folder / _LOCK)
        yield


@contextmanager
def _remover(folder: Path) -> Iterator[None]:
    command = ["sh", "-c", _REMOVE, "sh", str(folder), shm_prefix(folder)]
    # A separate session, because Ctrl-C must not end it.
    remover = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
    with remover:
        try:
            yield
        finally:
            remover.kill()


def _kill(folder: Path) -> None:
    """Kill Triton and the models of a dead server: their arguments name its shared memory."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(shm_prefix(folder) in word for word in process.cmdline()):
                process.kill()


def _remove_shared_memory(folder: Path) -> None:
    for region in _SHARED_MEMORY.glob(f"{shm_prefix(folder)}*"):
        region.unlink(missing_ok=True)
