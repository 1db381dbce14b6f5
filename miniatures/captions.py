"""The captions that the miniatures understand: one object, five attributes, 720 sentences.

a {small|large} {colour} {shape} {position} on a {background} background
"""

import hashlib
import itertools
from dataclasses import dataclass

SIZES = ("small", "large")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
SHAPES = ("circle", "square", "triangle", "star")
POSITIONS = (
    "in the center",
    "in the top left",
    "in the top right",
    "in the bottom left",
    "in the bottom right",
)
BACKGROUNDS = ("white", "black", "gray")


@dataclass(frozen=True)
class Scene:
    """The five attributes of one picture; every field holds a word of the caption."""

    size: str
    colour: str
    shape: str
    position: str
    background: str

    @property
    def caption(self) -> str:
        """The sentence that describes this scene."""
        return (
            f"a {self.size} {self.colour} {self.shape} {self.position} "
            f"on a {self.background} background"
        )


SCENES = tuple(
    Scene(*words) for words in itertools.product(SIZES, COLOURS, SHAPES, POSITIONS, BACKGROUNDS)
)
BY_CAPTION = {scene.caption: scene for scene in SCENES}


def _held_out() -> frozenset[Scene]:
    """The tenth of all scenes with the smallest SHA-256 of the caption: fixed and arbitrary."""

    def digest(scene: Scene) -> bytes:
        return hashlib.sha256(scene.caption.encode()).digest()

    return frozenset(sorted(SCENES, key=digest)[: len(SCENES) // 10])


HELD_OUT = _held_out()
TRAINING = tuple(scene for scene in SCENES if scene not in HELD_OUT)
