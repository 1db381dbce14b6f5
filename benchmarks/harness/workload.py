"""Workloads as data, and random requests drawn from them."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepwise.description.manifest import Sides

Resolution = tuple[int, int]

PROMPTS = tuple(
    f"a {size} {colour} {shape} in the {place} on a white background"
    for size in ("small", "large")
    for colour, shape, place in (
        ("red", "star", "top left"),
        ("green", "circle", "center"),
        ("blue", "square", "top right"),
        ("yellow", "triangle", "bottom left"),
    )
)


@dataclass(frozen=True)
class Workload:
    """A distribution of requests; settings are drawn uniformly and independently.

    ``steps`` are the minimum and maximum, ``resolutions`` keys of the function ``resolutions``,
    ``frames`` the lengths of videos.
    """

    steps: tuple[int, int]
    samplers: Sequence[str]
    resolutions: Sequence[str]
    frames: Sequence[int] = ()


@dataclass(frozen=True)
class Ask:
    """One request: the prompt, height and width in pixels, and all its settings."""

    prompt: str
    resolution: Resolution
    settings: Mapping[str, Any]


WORKLOADS = {
    "steps": Workload((8, 40), ("euler",), ("native",)),
    "mixed": Workload(
        (8, 40),
        ("euler", "heun", "dpmpp_2m", "dpmpp_3m_sde", "unipc", "lcm"),
        ("native", "smallest", "oblong"),
    ),
    "fixed": Workload((20, 20), ("euler",), ("native",)),
    "few": Workload((1, 4), ("euler_ancestral_trailing",), ("native",)),
    "videos": Workload((8, 40), ("euler",), ("native",), (17,)),
}


def resolutions(sides: Sides) -> dict[str, Resolution]:
    """Height and width in pixels of a checkpoint's representative resolutions, by name."""
    return {
        "native": (sides.native, sides.native),
        "smallest": (sides.minimum, sides.minimum),
        "largest": (sides.maximum, sides.maximum),
        "oblong": (sides.maximum, sides.native),
    }


def draw(workload: Workload, sides: Sides, count: int, seed: int) -> list[Ask]:
    """``count`` requests; the same ``seed`` gives the same requests."""
    chance = random.Random(seed)
    return [_ask(workload, resolutions(sides), chance) for _ in range(count)]


def _ask(workload: Workload, known: Mapping[str, Resolution], chance: random.Random) -> Ask:
    height, width = known[chance.choice(workload.resolutions)]
    settings = {
        "steps": chance.randint(*workload.steps),
        "sampler": chance.choice(workload.samplers),
        "seed": chance.randrange(1 << 31),
        "height": height,
        "width": width,
        **({"frames": chance.choice(workload.frames)} if workload.frames else {}),
    }
    return Ask(chance.choice(PROMPTS), (height, width), settings)
