"""Checks a file that the user or another file names, before anything opens it.

Opening a FIFO waits for a writer, and reading a device may never end.
"""

from pathlib import Path

# Pictures and videos are far smaller.
MOST_BYTES = 2_000_000_000


def check(path: Path) -> None:
    """Raise ValueError unless ``path`` is a regular file of 1 to ``MOST_BYTES`` bytes.

    Raises OSError if it is missing or its folder cannot be searched.
    """
    size = path.stat().st_size
    if not path.is_file():
        kind = "folder" if path.is_dir() else "FIFO, socket or device"
        raise ValueError(f"it is a {kind} where a regular file should be")
    if not size:
        raise ValueError("it is empty")
    if size > MOST_BYTES:
        raise ValueError(f"it has {size:,} bytes where at most {MOST_BYTES:,} are allowed")
