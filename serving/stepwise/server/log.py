"""Reads Triton's log."""

import re
from pathlib import Path

_TAIL_LINES = 30
_LOADED = "successfully loaded '"
_LOAD_FAILURE = re.compile(
    r"(?:failed to load|failed to poll model|Poll failed for model directory) '(?P<model>[^']+)'"
    r"(?: version \d+)?: (?P<reason>.+?)(?:\\n|\"?$)",
    re.MULTILINE,
)


def tail(path: Path) -> str:
    """The last lines of the log, without its tables."""
    lines = [line for line in _text(path).splitlines() if line[:1] not in ("|", "+")]
    return "\n".join(lines[-_TAIL_LINES:])


def loaded(path: Path) -> int:
    """The number of models loaded so far."""
    return _text(path).count(_LOADED)


def load_failure(path: Path) -> str | None:
    """A sentence on the first model that failed to load, with Triton's reason."""
    found = _LOAD_FAILURE.search(_text(path))
    return found and f"Triton cannot load {found['model']}: {found['reason']}"


def _text(path: Path) -> str:
    return path.read_text(errors="replace")
