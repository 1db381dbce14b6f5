"""Pictures that a request is given, such as the one that a video starts from: files, and back."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from stepwise.client.errors import InvalidRequest

# What a video's file says of a picture that it was made from.
FILE, DIGEST = "file", "sha256"


def taken(
    settings: Mapping[str, Any], images: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings as they are sent, and as they are written into the file of the result.

    ``images`` are the names of those that are pictures. Given are their files, or what ``load`` of
    a file says of them; sent are arrays, uint8 (height, width, 3), resized if both height and width
    are among the settings; noted are the file's path and digest. Raises InvalidRequest for a file
    that is no readable picture, is gone, or is another one than it was.
    """
    paths = {name: _found(name, settings[name]) for name in images if name in settings}
    size = _size(settings)
    sent = {name: _read(name, path, size) for name, path in paths.items()}
    noted = {
        name: {FILE: str(path.resolve()), DIGEST: _digest(path)} for name, path in paths.items()
    }
    return {**settings, **sent}, {**settings, **noted}


def _found(name: str, given: str | Mapping[str, str]) -> Path:
    """The file of a picture, which is the one that it was if ``given`` is a note of it."""
    if isinstance(given, str):
        return Path(given)
    path, again = Path(given[FILE]), f"give it again with --{name.replace('_', '-')} FILE"
    try:
        same = _digest(path) == given[DIGEST]
    except OSError as error:
        raise InvalidRequest(f"{name}: {path}, of which this was made, is gone; {again}") from error
    if not same:
        raise InvalidRequest(f"{name}: {path} is not the picture that this was made of; {again}")
    return path


def _size(settings: Mapping[str, Any]) -> tuple[int, int] | None:
    """Width and height if both are given; the server says what is wrong with those that are not."""
    try:
        width, height = int(settings["width"]), int(settings["height"])
    except (KeyError, ValueError):
        return None
    return (width, height) if min(width, height) > 0 else None


def _read(name: str, path: Path, size: tuple[int, int] | None) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidRequest(
            f"{name}: {path} cannot be read as a picture: {error}; give a PNG, JPEG or WebP file"
        ) from error
    # As EasyAnimate's preprocess_image in diffusers does, with Pillow's default filter.
    return np.asarray(picture if size is None else picture.resize(size))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
