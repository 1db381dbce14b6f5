"""Contact sheets: evenly spaced frames of a video in one picture."""

from collections.abc import Iterator, Mapping
from math import ceil
from pathlib import Path

import numpy as np
from PIL import Image

from stepwise.client import files
from stepwise.client.events import Event
from stepwise.client.media.video import Frame

MOST = 8
_COLUMNS = 4
_GAP = 4  # pixels


def keys(frames: int) -> tuple[int, ...]:
    """Indices of the frames on a sheet: the first, the last and evenly spaced ones between.

    There are ``MOST`` of them, or all ``frames`` if the video has fewer.
    """
    spaced = np.linspace(0, frames - 1, min(MOST, frames)).round()
    return tuple(int(key) for key in spaced)


def keeping(slices: Iterator[Event], frames: int, kept: dict[int, Frame]) -> Iterator[Event]:
    """Yield the slices of a video of so many ``frames``; copy the sheet's into ``kept``."""
    wanted = set(keys(frames))
    for event in slices:
        assert event.frames is not None
        for index, frame in enumerate(event.frames, event.index):
            if index in wanted:
                kept[index] = frame.copy()  # a view would keep the whole slice in memory
        yield event


def save(kept: Mapping[int, Frame], path: Path, *, force: bool = False) -> None:
    """Write frames, uint8 (height, width, 3) by index, in rows of four on white.

    Raises OutputError if the file exists (without ``force``) or cannot be written.
    """
    height, width = next(iter(kept.values())).shape[:2]
    columns = min(_COLUMNS, len(kept))
    size = (columns * (width + _GAP) - _GAP, ceil(len(kept) / columns) * (height + _GAP) - _GAP)
    made = Image.new("RGB", size, "white")
    for place, index in enumerate(sorted(kept)):
        row, column = divmod(place, columns)
        corner = (column * (width + _GAP), row * (height + _GAP))
        made.paste(Image.fromarray(kept[index]), corner)
    with files.written(path, force=force) as partial:
        made.save(partial, "PNG")
