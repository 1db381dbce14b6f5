"""PNG files with the request in their metadata."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from stepwise.client import metadata
from stepwise.client.events import Event


def save(event: Event, path: Path, request: Mapping[str, Any]) -> None:
    """Write ``event.image`` as a PNG file with ``request`` (pipeline, prompt, settings) in it."""
    assert event.image is not None
    info = PngImagePlugin.PngInfo()
    info.add_itxt(metadata.KEY, metadata.text(request, event, num_images=1))
    Image.fromarray(event.image).save(path, pnginfo=info)
