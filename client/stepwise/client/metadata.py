"""Stores the request as JSON in a file's metadata, and reads it back."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
from PIL import ExifTags, Image

from stepwise.client import input_files
from stepwise.client.errors import InvalidRequest
from stepwise.client.events import Event
from stepwise.client.protocol import PIPELINE as PIPELINE

# The name of a PNG file's text chunk, and the first word of a comment.
KEY = "stepwise"
# Stored with the settings of a video: its frames per second.
FPS = "fps"
# Settings that do not change the result.
OF_THE_MOMENT = {"preview_every", "deadline_ms", "priority", "client"}


def text(request: Mapping[str, Any], event: Event, **own: int) -> str:
    """JSON of ``request`` (pipeline, prompt, settings) for the file of one result.

    The result's seed, its size and the ``own`` settings replace the request's. Settings that do not
    change the result are left out. So repeating the file makes exactly this result.
    """
    assert event.shown is not None
    height, width = event.shown.shape[:2]
    kept = {name: value for name, value in request.items() if name not in OF_THE_MOMENT}
    sized = {"seed": event.seed, "height": height, "width": width}
    return json.dumps({**kept, **sized, **own}, ensure_ascii=False)


def load(path: Path) -> dict[str, Any]:
    """The request stored in the file at ``path``. Raises InvalidRequest if there is none."""
    try:
        input_files.check(path)
        stored = _of_video(path) if path.suffix.lower() == ".mp4" else _of_picture(path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidRequest(f"{path}: cannot be read as a picture or video: {error}") from error
    if stored is None:
        raise InvalidRequest(
            f"{path}: holds no request; give a PNG, MP4, GIF or WebP file that this client wrote"
        )
    try:
        request: dict[str, Any] = json.loads(stored)
        return {"prompt": request["prompt"], PIPELINE: request[PIPELINE], **request}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidRequest(f"{path}: its request is damaged: {error!r}") from error


def comment(stored: str) -> str:
    """A request's text as a comment, marked because other programs write comments too."""
    return f"{KEY} {stored}"


def _of_video(path: Path) -> str | None:
    with av.open(path) as container:
        return _commented(container.metadata.get("comment", ""))


def _of_picture(path: Path) -> str | None:
    with Image.open(path) as picture:
        stored: str | None = picture.info.get(KEY)
        described = picture.getexif().get(ExifTags.Base.ImageDescription, "")
        noted = picture.info.get("comment", b"")
    # Pillow decodes EXIF text as Latin-1 regardless of its encoding.
    return stored or _commented(noted.decode()) or _commented(described.encode("latin-1").decode())


def _commented(words: str) -> str | None:
    return words.removeprefix(f"{KEY} ") if words.startswith(f"{KEY} ") else None
