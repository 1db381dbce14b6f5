"""The evaluation list: 300 captions with their seeds, 100 of them held out from training.

``prompts.json`` is the list. ``calibration.txt`` has training captions outside of the list, for
``export --quantize``. ``python -m miniatures.prompts`` rewrites both.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from miniatures.captions import BY_CAPTION, HELD_OUT, TRAINING, Scene

PATH = Path(__file__).with_name("prompts.json")
CALIBRATION = Path(__file__).with_name("calibration.txt")
SEEN_COUNT, HELD_OUT_COUNT, CALIBRATION_COUNT = 200, 100, 32


@dataclass(frozen=True)
class Prompt:
    """One picture to make: its scene, its seed, and whether it was held out from training."""

    scene: Scene
    seed: int
    held_out: bool


def _digest(scene: Scene) -> bytes:
    return hashlib.sha256(f"evaluation: {scene.caption}".encode()).digest()


def make() -> tuple[Prompt, ...]:
    """The list in order: 200 training captions, then 100 held out; a prompt's seed is its row.

    There are 72 held-out captions, so the first 28 repeat with other seeds.
    """
    held_out = sorted(HELD_OUT, key=_digest)
    scenes = sorted(TRAINING, key=_digest)[:SEEN_COUNT] + (2 * held_out)[:HELD_OUT_COUNT]
    return tuple(Prompt(scene, seed, scene in HELD_OUT) for seed, scene in enumerate(scenes))


def calibration() -> tuple[str, ...]:
    """The training captions that follow the evaluated ones, in the same order."""
    scenes = sorted(TRAINING, key=_digest)[SEEN_COUNT:]
    return tuple(scene.caption for scene in scenes[:CALIBRATION_COUNT])


def save(prompts: tuple[Prompt, ...]) -> None:
    """Write ``prompts.json``, one prompt per line."""
    rows = [
        json.dumps(
            {"caption": prompt.scene.caption, "seed": prompt.seed, "held_out": prompt.held_out}
        )
        for prompt in prompts
    ]
    PATH.write_text("[\n  " + ",\n  ".join(rows) + "\n]\n")


def load() -> tuple[Prompt, ...]:
    """The prompts of ``prompts.json``."""
    rows = json.loads(PATH.read_text())
    return tuple(Prompt(BY_CAPTION[row["caption"]], row["seed"], row["held_out"]) for row in rows)


if __name__ == "__main__":
    save(make())
    CALIBRATION.write_text("\n".join(calibration()) + "\n")
