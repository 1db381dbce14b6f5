"""The request log: one JSON line for each answered request.

``STEPWISE_REQUEST_LOG`` names its file, and ``STEPWISE_LOG_PROMPTS=0`` leaves prompts out;
``stepwise serve --request-log`` sets both. All pipelines append to the same file.
"""

import json
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from stepwise.description.fields import Array

log = logging.getLogger(__name__)

_LONGEST_TEXT = 1000
_MOST_VALUES = 4
_PROMPTS = ("prompt", "negative_prompt")
# Characters that JSON does not escape, although some readers end a line at them and terminals may
# execute them: control characters beyond ASCII, and Unicode's two separators.
_ESCAPED = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029)}

Record = dict[str, Any]


def asked(inputs: Mapping[str, Array]) -> Record:
    """A request's tensors in the form that its line logs; empty if there is no log."""
    if _path() is None:
        return {}
    hidden = _PROMPTS if os.environ.get("STEPWISE_LOG_PROMPTS") == "0" else ()
    return {name: _plain(value) for name, value in inputs.items() if name not in hidden}


def write(record: Record) -> None:
    """Append a line with the time and ``record``, if there is a log.

    A failed write is reported and the line is lost, but the request is not affected.
    """
    path = _path()
    if path is None:
        return
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    try:
        line = json.dumps({"time": now, **record}, ensure_ascii=False).translate(_ESCAPED)
        _append(path, f"{line}\n".encode())
    except (OSError, ValueError) as error:
        log.error("cannot write a line of the request log: %s", error)


def _append(path: str, line: bytes) -> None:
    # A single write in append mode, so that lines of several processes do not mix.
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    try:
        os.write(file, line)
    finally:
        os.close(file)


def _path() -> str | None:
    return os.environ.get("STEPWISE_REQUEST_LOG") or None


def _plain(value: Array) -> Any:
    """A request tensor for JSON: its single value, a short list, or its dtype and shape."""
    if not 1 <= value.size <= _MOST_VALUES:
        return f"{value.dtype} of shape {list(value.shape)}"
    items = [_plain_item(item) for item in value.reshape(-1)]
    return items[0] if len(items) == 1 else items


def _plain_item(item: Any) -> str | int | float:
    if isinstance(item, bytes):
        return item.decode(errors="backslashreplace")[:_LONGEST_TEXT]
    number: int | float = item.item()
    return number if abs(number) < float("inf") else str(number)
