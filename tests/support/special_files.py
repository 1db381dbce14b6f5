"""Files that never end, that no program may read, or that parsers fail on.

Each function makes one at a free path.
"""

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

DEPTH = 100_000
NOBODY = 65534
TWO_TERABYTES = 2 << 40


def _bind(path: Path) -> None:
    """Make a socket. Its path may be longer than sockets allow, so its folder is opened."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, TWO_TERABYTES)


KINDS: dict[str, Callable[[Path], None]] = {
    "FIFO": os.mkfifo,
    "socket": _bind,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
    "link to its folder": lambda path: path.symlink_to("."),
    "link to itself": lambda path: path.symlink_to(path.name),
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "empty": Path.touch,
    "file of /proc": lambda path: path.symlink_to("/proc/self/maps"),
    "sparse": _sparse,
}


def deep_json(path: Path) -> None:
    """Replace a JSON file by one with a further value in ``DEPTH`` lists."""
    whole = json.dumps({**json.loads(path.read_text()), "deep": 0})
    path.unlink()
    path.write_text(whole.replace('"deep": 0', f'"deep": {"[" * DEPTH}{"]" * DEPTH}'))


def deep_header(path: Path) -> None:
    """Replace a safetensors file by one with ``DEPTH`` objects in its header."""
    header = b'{"weight": ' * DEPTH + b"0" + b"}" * DEPTH
    path.unlink()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Within the block, permissions of files count for root, too."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(was)
