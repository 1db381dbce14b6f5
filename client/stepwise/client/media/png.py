"""PNG files with the request in their metadata."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from stepwise.client import files, metadata
from stepwise.client.events import Event


def save(event: Event, path: Path, request: Mapping[str, Any], *, force: bool = False) -> None:
    """Write ``event.image`` as a PNG file with ``request`` (pipeline, prompt, settings) in it.

    Raises OutputError if the file exists (without ``force``) or cannot be written.
    """
    assert event.image is not None
    info = PngImagePlugin.PngInfo()
    info.add_itxt(metadata.KEY, metadata.text(request, event, num_images=1))
    with files.written(path, force=force) as partial:
        Image.fromarray(event.image).save(partial, "PNG", pnginfo=info)
