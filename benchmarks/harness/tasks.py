"""Steps and guidance for each family's measurements."""

from dataclasses import dataclass
from typing import Any

from stepwise.description.manifest import Manifest


@dataclass(frozen=True)
class Task:
    """Settings of a picture, the same for our server and diffusers."""

    steps: int
    guidance_scale: float

    def settings(self, manifest: Manifest) -> dict[str, Any]:
        """All settings but the steps, by names shared by our requests and diffusers' calls."""
        side = manifest.sides.native
        return {"guidance_scale": self.guidance_scale, "height": side, "width": side}


@dataclass(frozen=True)
class Family:
    """A family's tasks for scoring pictures and for measuring speed; video families have none.

    ``workload`` is the key in ``WORKLOADS`` for running the family next to another one.
    """

    quality: tuple[Task, ...]
    speed: tuple[Task, ...]
    workload: str


FEW_STEPS = (Task(4, 0.0), Task(1, 0.0))
# Pictures are scored at the miniature's best guidance: at SD3's default of 7, the miniature's
# colours bleed. Everything else uses the family's default.
TASKS = {
    "sd3": Family(quality=(Task(20, 1.5),), speed=(Task(20, 7.0),), workload="steps"),
    "sdxl": Family(quality=(Task(20, 5.0),), speed=(Task(20, 5.0),), workload="steps"),
    "sdxl_turbo": Family(quality=FEW_STEPS, speed=FEW_STEPS, workload="few"),
    "easyanimate": Family(quality=(), speed=(), workload="videos"),
}
