"""Pictures that remember how they were made: PNG files with the request in their metadata."""

import json
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from client.errors import InvalidRequest
from client.events import Event

_KEY = "stepwise"
# Not settings of a request: the pipeline that was called.
PIPELINE = "pipeline"
# Settings that leave the picture as it is.
OF_THE_MOMENT = {"preview_every", "deadline_ms", "priority", "client"}


def save(event: Event, path: Path, request: dict[str, Any]) -> None:
    """Write ``event.image`` with ``request`` (pipeline, prompt, settings) beside it.

    The picture's own seed and size replace those of the request, and what does not change a picture
    is left out, so that repeating the file makes this picture alone.
    """
    assert event.image is not None
    height, width = event.image.shape[:2]
    own = {"seed": event.seed, "num_images": 1, "height": height, "width": width}
    kept = {name: value for name, value in request.items() if name not in OF_THE_MOMENT}
    info = PngImagePlugin.PngInfo()
    info.add_itxt(_KEY, json.dumps({**kept, **own}, ensure_ascii=False))
    Image.fromarray(event.image).save(path, pnginfo=info)


def load(path: Path) -> dict[str, Any]:
    """The request that made the picture in ``path``; InvalidRequest if the file does not say."""
    try:
        with Image.open(path) as picture:
            text = picture.info.get(_KEY)
    except (OSError, UnidentifiedImageError) as error:
        raise InvalidRequest(f"{path}: cannot be read as a picture: {error}") from error
    if text is None:
        raise InvalidRequest(
            f"{path}: holds no request; only PNG files that this client wrote can be repeated"
        )
    try:
        request: dict[str, Any] = json.loads(text)
        return {"prompt": request["prompt"], PIPELINE: request[PIPELINE], **request}
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(f"{path}: its request is damaged: {error!r}") from error
