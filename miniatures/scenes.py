"""Draws a scene as a 64 x 64 picture; the miniatures are trained on these pictures only."""

import math
import random
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw

from miniatures.captions import Scene

SIDE = 64
_SUPERSAMPLING = 4

COLOUR_RGB = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (245, 215, 40),
    "purple": (140, 50, 180),
    "orange": (245, 130, 30),
}
BACKGROUND_RGB = {"white": (255, 255, 255), "black": (0, 0, 0), "gray": (128, 128, 128)}
CENTRE = {
    "in the center": (32.0, 32.0),
    "in the top left": (19.0, 19.0),
    "in the top right": (45.0, 19.0),
    "in the bottom left": (19.0, 45.0),
    "in the bottom right": (45.0, 45.0),
}
# Radius in pixels of a disc; the other shapes are scaled to look about as large.
RADIUS = {"small": 7.5, "large": 13.5}
_PLACE_JITTER = 2.0
_SIZE_JITTER = 0.06
# An outlined shape is hollow up to this share of its radius.
_HOLLOW = 0.6


class Coloured(Protocol):
    """A shape and two colours, as words."""

    @property
    def shape(self) -> str:
        """A word of ``SHAPES``."""

    @property
    def colour(self) -> str:
        """A word of ``COLOURS``."""

    @property
    def background(self) -> str:
        """A word of ``BACKGROUNDS``."""


def outline(shape: str, x: float, y: float, radius: float) -> list[tuple[float, float]]:
    """The corners of ``shape`` around the centre of its bounding disc, in pixels."""
    if shape == "circle":
        angles, radii = [i / 64 for i in range(64)], [radius]
    elif shape == "square":
        angles, radii = [1 / 8 + i / 4 for i in range(4)], [radius * 1.25]
    elif shape == "triangle":
        angles, radii = [-1 / 4 + i / 3 for i in range(3)], [radius * 1.2]
    else:
        angles, radii = [-1 / 4 + i / 10 for i in range(10)], [radius * 1.2, radius * 0.5]
    return [
        (
            x + radii[i % len(radii)] * math.cos(2 * math.pi * angle),
            y + radii[i % len(radii)] * math.sin(2 * math.pi * angle),
        )
        for i, angle in enumerate(angles)
    ]


def draw_shape(
    what: Coloured, x: float, y: float, radius: float, side: int, hollow: bool = False
) -> np.ndarray:
    """A picture of one shape around (x, y), in pixels; if hollow, filled with the background.

    Returns uint8 RGB of shape (side, side, 3).
    """
    scale, background = _SUPERSAMPLING, BACKGROUND_RGB[what.background]
    canvas = Image.new("RGB", (side * scale, side * scale), background)
    fills = [(1.0, COLOUR_RGB[what.colour])] + [(_HOLLOW, background)] * hollow
    for share, colour in fills:
        corners = outline(what.shape, x * scale, y * scale, share * radius * scale)
        ImageDraw.Draw(canvas).polygon(corners, fill=colour)
    return np.asarray(canvas.resize((side, side), Image.Resampling.BOX))


def draw(scene: Scene, rng: random.Random, outlined: bool = False) -> np.ndarray:
    """One picture of ``scene``, with slightly jittered place and size.

    Returns uint8 RGB of shape (64, 64, 3). An outlined shape is filled with the background.
    """
    x, y = (c + rng.uniform(-_PLACE_JITTER, _PLACE_JITTER) for c in CENTRE[scene.position])
    radius = RADIUS[scene.size] * (1 + rng.uniform(-_SIZE_JITTER, _SIZE_JITTER))
    return draw_shape(scene, x, y, radius, SIDE, outlined)
