"""The videos that the EasyAnimate miniature understands, and drawings of them: 288 sentences.

a {colour} {shape} moving {left|right|up|down} on a {background} background
"""

import hashlib
import itertools
import random
from dataclasses import dataclass
from functools import partial

import numpy as np

from miniatures.captions import BACKGROUNDS, COLOURS, SHAPES
from miniatures.scenes import draw_shape

SIDE = 48
FRAMES = 17
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
# In pixels: a disc's radius (other shapes look about as large), and the distance of the movement.
RADIUS = 10.0
PATH = 16.0
_PATH_JITTER = 1.5
_PLACE_JITTER = 1.0
_SIDEWAYS_JITTER = 5.0
_SIZE_JITTER = 0.06
_EVALUATED = 100


@dataclass(frozen=True)
class Video:
    """The four attributes of a video; every field holds a word of the caption."""

    colour: str
    shape: str
    direction: str
    background: str

    @property
    def caption(self) -> str:
        """The sentence that describes this video."""
        return (
            f"a {self.colour} {self.shape} moving {self.direction} "
            f"on a {self.background} background"
        )


VIDEOS = tuple(
    Video(*words) for words in itertools.product(COLOURS, SHAPES, DIRECTIONS, BACKGROUNDS)
)
BY_CAPTION = {video.caption: video for video in VIDEOS}


def digest(video: Video, use: str = "") -> bytes:
    """A fixed digest for each video and use, to sort videos in an arbitrary order."""
    return hashlib.sha256(f"{use}{video.caption}".encode()).digest()


HELD_OUT = frozenset(sorted(VIDEOS, key=digest)[: len(VIDEOS) // 10])
TRAINING = tuple(video for video in VIDEOS if video not in HELD_OUT)


@dataclass(frozen=True)
class Evaluated:
    """One video to make: its attributes, its seed, and whether it was held out from training."""

    video: Video
    seed: int
    held_out: bool


def evaluation() -> tuple[Evaluated, ...]:
    """The 100 evaluated videos: 72 from training and the 28 held out; a video's seed is its row."""
    order = partial(digest, use="evaluation: ")
    seen = sorted(TRAINING, key=order)[: _EVALUATED - len(HELD_OUT)]
    rows = enumerate((*seen, *sorted(HELD_OUT, key=order)))
    return tuple(Evaluated(video, seed, video in HELD_OUT) for seed, video in rows)


def draw(video: Video, rng: random.Random) -> np.ndarray:
    """One drawing of ``video``: its shape moves evenly through the middle, slightly jittered.

    Returns uint8 RGB of shape (17, 48, 48, 3).
    """
    along, path = DIRECTIONS[video.direction], PATH + rng.uniform(-_PATH_JITTER, _PATH_JITTER)
    sideways = rng.uniform(-_SIDEWAYS_JITTER, _SIDEWAYS_JITTER)
    offset = rng.uniform(-_PLACE_JITTER, _PLACE_JITTER)
    radius = RADIUS * (1 + rng.uniform(-_SIZE_JITTER, _SIZE_JITTER))
    frames = []
    for frame in range(FRAMES):
        ahead = offset + path * (frame / (FRAMES - 1) - 0.5)
        x, y = (SIDE / 2 + step * ahead + (1 - abs(step)) * sideways for step in along)
        frames.append(draw_shape(video, x, y, radius, SIDE))
    return np.stack(frames)
