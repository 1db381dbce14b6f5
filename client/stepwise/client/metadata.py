"""What a file says of how it was made: the request, as JSON in the file's metadata."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
from PIL import ExifTags, Image

from stepwise.client.errors import InvalidRequest
from stepwise.client.events import Event

# PNG files have a text chunk of this name; in a comment it is the first word.
KEY = "stepwise"
# Not settings of a request: the pipeline that was called, and a video's frames per second.
PIPELINE, FPS = "pipeline", "fps"
# Settings that leave the result as it is.
OF_THE_MOMENT = {"preview_every", "deadline_ms", "priority", "client"}


def text(request: Mapping[str, Any], event: Event, **own: int) -> str:
    """JSON of ``request`` (pipeline, prompt, settings) for the file of one result of it.

    The result's own seed and size, and what else is its ``own``, replace those of the request, and
    what does not change a result is left out, so that repeating the file makes this result alone.
    """
    assert event.shown is not None
    height, width = event.shown.shape[:2]
    kept = {name: value for name, value in request.items() if name not in OF_THE_MOMENT}
    sized = {"seed": event.seed, "height": height, "width": width}
    return json.dumps({**kept, **sized, **own}, ensure_ascii=False)


def load(path: Path) -> dict[str, Any]:
    """The request that made what is in ``path``; InvalidRequest if the file does not say."""
    try:
        stored = _of_video(path) if path.suffix.lower() == ".mp4" else _of_picture(path)
    except (OSError, SyntaxError, ValueError) as error:
        raise InvalidRequest(f"{path}: cannot be read as a picture or video: {error}") from error
    if stored is None:
        raise InvalidRequest(
            f"{path}: holds no request; only PNG, MP4, GIF and WebP files that this client wrote "
            "can be repeated"
        )
    try:
        request: dict[str, Any] = json.loads(stored)
        return {"prompt": request["prompt"], PIPELINE: request[PIPELINE], **request}
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(f"{path}: its request is damaged: {error!r}") from error


def comment(stored: str) -> str:
    """A request's text for a comment, where others may write whatever they like."""
    return f"{KEY} {stored}"


def _of_video(path: Path) -> str | None:
    with av.open(path) as container:
        return _commented(container.metadata.get("comment", ""))


def _of_picture(path: Path) -> str | None:
    with Image.open(path) as picture:
        stored: str | None = picture.info.get(KEY)
        described = picture.getexif().get(ExifTags.Base.ImageDescription, "")
        noted = picture.info.get("comment", b"")
    # Pillow reads EXIF's text as Latin-1, whatever it is.
    return stored or _commented(noted.decode()) or _commented(described.encode("latin-1").decode())


def _commented(words: str) -> str | None:
    return words.removeprefix(f"{KEY} ") if words.startswith(f"{KEY} ") else None
