"""Checks files that somebody else made, before anything opens or parses them.

Reading a FIFO or a device may never end, and parsers fail in their own ways on deep nesting. Links
are followed, as the Hugging Face cache consists of links.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

# The greatest number of lists and objects around a value; parsers of libraries allow 128 and more.
MOST_DEPTH = 64
# Plans, records and manifests of large models have a few MB, tokenizers up to 40 MB.
MOST_BYTES = 100_000_000

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class UnusableFile(ValueError):
    """A file is missing, special, unreadable, too large or no JSON; the message begins with it."""


def check(path: Path, most: int = MOST_BYTES) -> None:
    """Raise UnusableFile unless ``path`` is a readable regular file of 1 to ``most`` bytes.

    The file is not opened.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise _unusable(path, error) from error
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "a special file")
        raise UnusableFile(f"{path} is {kind} where a regular file should be")
    if found.st_size > most:
        raise UnusableFile(f"{path} has {found.st_size:,} bytes where at most {most:,} are allowed")
    # Files of /proc have no size either, and some of them never end.
    if not found.st_size:
        raise UnusableFile(f"{path} is empty")
    if not os.access(path, os.R_OK, effective_ids=True):
        raise UnusableFile(f"{path} cannot be read (Permission denied)")


def read_json(path: Path, most: int = MOST_BYTES) -> Any:
    """The value in a JSON file of at most ``most`` bytes; raises UnusableFile."""
    check(path, most)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unusable(path, error) from error
    except RecursionError as error:
        raise _too_deep(path) from error
    except ValueError as error:
        raise UnusableFile(f"{path} is not valid JSON ({error})") from error
    if _is_deep(value):
        raise _too_deep(path)
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MOST_DEPTH):
        level = [inner for outer in level for inner in _inside(outer) if _is_container(inner)]
    return bool(level)


def _inside(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _is_container(value: Any) -> bool:
    return isinstance(value, dict | list)


def _too_deep(path: Path) -> UnusableFile:
    return UnusableFile(f"{path} is nested deeper than the allowed {MOST_DEPTH} lists and objects")


def _unusable(path: Path, error: Exception) -> UnusableFile:
    if isinstance(error, FileNotFoundError):
        if path.is_symlink():
            return UnusableFile(f"{path} is a link to {os.readlink(path)}, which is missing")
        return UnusableFile(f"{path} is missing")
    return UnusableFile(f"{path} cannot be read ({getattr(error, 'strerror', None) or error})")
