"""Reads the four attributes of a video, frame by frame, and compares them with its caption.

    colour, shape, background   the same in every frame, read as in ``score``
    direction                   of the shape's centroid, from each frame to the next

A word that is unreadable in one frame, or differs between frames, is unreadable for the video.
"""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from miniatures.score import check_sides, look
from miniatures.videos import DIRECTIONS, FRAMES, SIDE, Video

# In pixels: the least total movement, the most sideways drift, the most step back in one frame.
LEAST_WAY, MOST_ASIDE, MOST_BACK = 8.0, 4.0, 1.0


@dataclass(frozen=True)
class Reading:
    """The words for a video, as in ``Video``; None where it is unreadable."""

    colour: str | None = None
    shape: str | None = None
    direction: str | None = None
    background: str | None = None


def _only(words: list[str | None]) -> str | None:
    """The word if all frames agree on it, else None."""
    return words[0] if len(set(words)) == 1 else None


def direction(centroids: npt.NDArray[np.float64]) -> str | None:
    """The direction of a shape's centroids (frames, 2), x and y in pixels; None if unclear."""
    steps = np.diff(centroids, axis=0)
    for word, along in DIRECTIONS.items():
        ahead, aside = steps @ np.asarray(along), steps @ np.asarray(along[::-1])
        went_aside = np.abs(np.cumsum(aside)).max()
        if ahead.sum() >= LEAST_WAY and ahead.min() >= -MOST_BACK and went_aside <= MOST_ASIDE:
            return word
    return None


def read(video: npt.NDArray[np.uint8]) -> Reading:
    """Read a video, uint8 RGB of shape (17, 48, 48, 3).

    Raises ValueError for another shape or dtype.
    """
    check_sides(video, (FRAMES, SIDE, SIDE, 3))
    seen = [look(frame) for frame in video]
    colour, shape, background = (
        _only([getattr(frame, name) for frame in seen])
        for name in ("colour", "shape", "background")
    )
    places = [frame.centroid for frame in seen if frame.centroid is not None]
    way = direction(np.asarray(places)) if len(places) == len(video) else None
    return Reading(colour, shape, way, background)


def score(video: npt.NDArray[np.uint8], asked: Video) -> dict[str, bool]:
    """For each attribute of ``asked``, whether the video shows it in every frame."""
    reading = read(video)
    return {
        field.name: getattr(reading, field.name) == getattr(asked, field.name)
        for field in fields(Video)
    }
