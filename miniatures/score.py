"""Reads the five attributes of a picture with plain geometry, and compares them with a caption.

    background   the border's median colour
    shape        one connected patch in one other colour, its outline as a function of angle
    the rest     the patch's colour, the radius of its best-fitting outline, its centroid

A picture that is not one crisp shape on an even background is unreadable; the scorer never guesses.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from miniatures.captions import Scene
from miniatures.scenes import BACKGROUND_RGB, CENTRE, COLOUR_RGB, RADIUS, SIDE

Array = npt.NDArray[np.float64]

# Distances between colours are Euclidean, in units of 1/255; lengths are in pixels.
MAX_COLOUR_DISTANCE = 35.0
MIN_CONTRAST = 50.0
MAX_PLACE_DISTANCE = 6.0
MAX_RADIUS_RATIO = 1.2
MIN_SHARE_OF_LARGEST_PATCH = 0.95
MIN_SHARE_OF_TWO_COLOURS = 0.98
MAX_SHARPNESS = 1.25
MAX_EDGE_WIDTH = 3.0

_ANGLES = np.arange(120) * (2 * math.pi / 120)
_RAY_STEP = 0.25


@dataclass(frozen=True)
class Reading:
    """The words for a picture, as in ``Scene``; None where it is unreadable."""

    size: str | None = None
    colour: str | None = None
    shape: str | None = None
    position: str | None = None
    background: str | None = None


@dataclass(frozen=True)
class _Patch:
    """A picture's one coloured shape; ``coverage`` (height, width) is 1 inside and 0 outside."""

    colour: Array
    coverage: Array

    @property
    def centroid(self) -> tuple[float, float]:
        """Row and column, in pixel indices."""
        row, column = ndimage.center_of_mass(self.coverage)
        return float(row), float(column)


@dataclass(frozen=True)
class _Form:
    """A star with ``tips`` tips, scaled to a disc of radius 1; shallow notches give a polygon.

    ``rotation`` is the angle of the first tip from the top, in radians. ``min_sharpness`` and
    ``max_error`` bound the results of ``_fit``.
    """

    tips: int
    tip: float
    notch: float
    rotation: float
    min_sharpness: float
    max_error: float

    @cached_property
    def radii(self) -> Array:
        """The outline's radius at each angle."""
        half, tip, notch = math.pi / self.tips, self.tip, self.notch
        angle = np.abs((_ANGLES + math.pi / 2 - self.rotation + half) % (2 * half) - half)
        height: Array = tip * np.sin(angle) + notch * np.sin(half - angle)
        return tip * notch * math.sin(half) / height


# An autoencoder blunts a small star until it is nearly a pentagon, which has sharpness 0.24.
FORMS = {
    "circle": _Form(60, 1.0, 1.0, 0.0, -math.inf, 0.04),
    "square": _Form(4, 1.25, 1.25 * math.cos(math.pi / 4), math.pi / 4, 0.6, 0.05),
    "triangle": _Form(3, 1.2, 0.6, 0.0, 0.6, 0.085),
    "star": _Form(5, 1.2, 0.5, 0.0, 0.28, 0.11),
}


def _nearest(
    value: npt.ArrayLike, words: Mapping[str, Sequence[float]], limit: float
) -> str | None:
    """The word with the vector nearest to ``value``, or None beyond ``limit``."""
    distances = {word: math.dist(np.asarray(value), vector) for word, vector in words.items()}
    word = min(distances, key=distances.__getitem__)
    return word if distances[word] <= limit else None


def _find_patch(pixels: Array, background: Array) -> _Patch | None:
    """The shape, if the picture is one connected patch of one colour on ``background``."""
    foreground = np.linalg.norm(pixels - background, axis=-1) > MIN_CONTRAST
    labels, count = ndimage.label(foreground, structure=np.ones((3, 3)))
    if count == 0:
        return None
    largest = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    if largest.sum() < MIN_SHARE_OF_LARGEST_PATCH * foreground.sum():
        return None
    depth = ndimage.distance_transform_edt(largest)
    colour = np.median(pixels[depth > depth.max() / 2], axis=0)
    contrast = colour - background
    coverage = np.clip((pixels - background) @ contrast / (contrast @ contrast), 0, 1)
    mixture = background + coverage[..., None] * contrast
    explained = np.linalg.norm(pixels - mixture, axis=-1) < MIN_CONTRAST
    if explained.mean() < MIN_SHARE_OF_TWO_COLOURS:
        return None
    return _Patch(colour, coverage * ndimage.binary_dilation(largest, iterations=2))


def _outline(patch: _Patch) -> Array:
    """The patch's radius around its centroid at each angle: coverage summed along the ray."""
    row, column = patch.centroid
    ray = np.arange(0.0, len(patch.coverage) / 2, _RAY_STEP)
    rows = row + np.outer(np.sin(_ANGLES), ray)
    columns = column + np.outer(np.cos(_ANGLES), ray)
    rays: Array = ndimage.map_coordinates(patch.coverage, [rows, columns], order=1)
    return np.asarray(rays.sum(axis=1) * _RAY_STEP)


def _fit(measured: Array, form: _Form) -> tuple[float, float]:
    """The sharpness of the form's corners in ``measured``, 1 as drawn, and the remaining error.

    Compares the outlines' relative deviations from their mean radius; the error is the root mean
    square of the residual.
    """
    deviation = measured / measured.mean() - 1
    ideal = form.radii / form.radii.mean() - 1
    sharpness = float(deviation @ ideal / (ideal @ ideal + 1e-6))
    return sharpness, float(np.sqrt(np.mean((deviation - sharpness * ideal) ** 2)))


def _edge_width(patch: _Patch, outline: Array) -> float:
    """Mean width in pixels, along the outline, of the edge between 10% and 90% coverage."""
    ends = np.stack([outline * np.cos(_ANGLES), outline * np.sin(_ANGLES)])
    perimeter = np.linalg.norm(ends - np.roll(ends, 1, axis=1), axis=0).sum()
    return float(((patch.coverage > 0.1) & (patch.coverage < 0.9)).sum() / perimeter)


def _shape(patch: _Patch, measured: Array) -> str | None:
    """The form with the smallest error, if it fits well and its edge is crisp."""
    errors = {}
    for shape, form in FORMS.items():
        sharpness, error = _fit(measured, form)
        if form.min_sharpness <= sharpness <= MAX_SHARPNESS and error <= form.max_error:
            errors[shape] = error
    if not errors or _edge_width(patch, measured) > MAX_EDGE_WIDTH:
        return None
    return min(errors, key=errors.__getitem__)


def _size(measured: Array, shape: str) -> str | None:
    """The size with the radius nearest to that of a ``shape`` with the measured area."""
    radius = math.sqrt(np.mean(measured**2) / np.mean(FORMS[shape].radii ** 2))
    logarithms = {size: (math.log(radius),) for size, radius in RADIUS.items()}
    return _nearest([math.log(radius)], logarithms, math.log(MAX_RADIUS_RATIO))


@dataclass(frozen=True)
class Sight:
    """The content of a picture of any size: three words, and the shape's place and outline.

    ``centroid`` is (x, y) in pixels, ``outline`` the shape's radius at each angle. Unreadable
    fields are None.
    """

    colour: str | None = None
    shape: str | None = None
    background: str | None = None
    centroid: tuple[float, float] | None = None
    outline: Array | None = None


def look(picture: npt.NDArray[np.uint8]) -> Sight:
    """Look at a picture, uint8 RGB of shape (side, side, 3)."""
    pixels = picture.astype(np.float64)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    background = np.median(border, axis=0)
    word = _nearest(background, BACKGROUND_RGB, MAX_COLOUR_DISTANCE)
    patch = _find_patch(pixels, background)
    if word is None or patch is None:
        return Sight(background=word)
    outline = _outline(patch)
    row, column = patch.centroid
    return Sight(
        colour=_nearest(patch.colour, COLOUR_RGB, MAX_COLOUR_DISTANCE),
        shape=_shape(patch, outline),
        background=word,
        centroid=(column + 0.5, row + 0.5),
        outline=outline,
    )


def check_sides(picture: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a picture or video is uint8 of this shape."""
    if picture.shape != shape or picture.dtype != np.uint8:
        raise ValueError(
            f"got {picture.dtype} of shape {picture.shape}; only uint8 of shape {shape} can be "
            "read: resize or convert it"
        )


def read(picture: npt.NDArray[np.uint8]) -> Reading:
    """Read a picture, uint8 RGB of shape (64, 64, 3).

    Raises ValueError for another shape or dtype.
    """
    check_sides(picture, (SIDE, SIDE, 3))
    seen = look(picture)
    if seen.centroid is None or seen.outline is None:
        return Reading(background=seen.background)
    size = seen.shape and _size(seen.outline, seen.shape)
    position = _nearest(seen.centroid, CENTRE, MAX_PLACE_DISTANCE)
    return Reading(size, seen.colour, seen.shape, position, seen.background)


def score(picture: npt.NDArray[np.uint8], scene: Scene) -> dict[str, bool]:
    """For each attribute of ``scene``, whether the picture shows it; ``picture`` as in ``read``."""
    reading = read(picture)
    return {
        field.name: getattr(reading, field.name) == getattr(scene, field.name)
        for field in fields(Scene)
    }
