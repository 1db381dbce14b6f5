"""Input pictures of requests, such as a video's first frame: read from files, noted in results."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from stepwise.client import input_files
from stepwise.client.errors import InvalidRequest
from stepwise.client.protocol import FILE

# In the note that a video file keeps about an input picture, next to its file.
DIGEST = "sha256"


def taken(
    settings: Mapping[str, Any], images: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings to send, and the settings to write into the result's file.

    ``images`` names the settings that are pictures: each is a file, or the note that ``load`` read.
    Sent are arrays, uint8 (height, width, 3), resized if both height and width are set; noted are
    the file's path and digest. Raises InvalidRequest for a picture file that is unreadable, missing
    or changed since the note.
    """
    paths = {name: _found(name, settings[name]) for name in images if name in settings}
    size = _size(settings)
    sent = {name: _read(name, path, size) for name, path in paths.items()}
    noted = {
        name: {FILE: str(path.resolve()), DIGEST: _digest(path)} for name, path in paths.items()
    }
    return {**settings, **sent}, {**settings, **noted}


def _found(name: str, given: str | Mapping[str, str]) -> Path:
    """The picture's file, verified against its digest if ``given`` is a note."""
    if isinstance(given, str):
        return Path(given)
    again = f"give it again with --{name.replace('_', '-')} FILE"
    if given[FILE] is None:
        raise InvalidRequest(f"{name}: the input picture was an array, without a file; {again}")
    path = Path(given[FILE])
    try:
        input_files.check(path)
        same = _digest(path) == given[DIGEST]
    except FileNotFoundError as error:
        raise InvalidRequest(f"{name}: the input picture {path} is missing; {again}") from error
    except (OSError, ValueError) as error:
        raise InvalidRequest(
            f"{name}: the input picture {path} cannot be read: {error}; {again}"
        ) from error
    if not same:
        raise InvalidRequest(f"{name}: the input picture {path} has changed; {again}")
    return path


def _size(settings: Mapping[str, Any]) -> tuple[int, int] | None:
    """Width and height if both are valid; otherwise None, and the server reports the error."""
    try:
        width, height = int(settings["width"]), int(settings["height"])
    except (KeyError, ValueError):
        return None
    return (width, height) if min(width, height) > 0 else None


def _read(name: str, path: Path, size: tuple[int, int] | None) -> npt.NDArray[np.uint8]:
    try:
        input_files.check(path)
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidRequest(
            f"{name}: {path} cannot be read as a picture: {error}; give a PNG, JPEG or WebP file"
        ) from error
    # Pillow's default filter, like EasyAnimate's preprocess_image in diffusers.
    return np.asarray(picture if size is None else picture.resize(size))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
