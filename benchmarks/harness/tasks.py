"""How each family is measured: the steps and the guidance that it is made for."""

from dataclasses import dataclass
from typing import Any

from stepwise.description.manifest import Manifest


@dataclass(frozen=True)
class Task:
    """What a picture is made with, by us and by diffusers alike."""

    steps: int
    guidance_scale: float

    def settings(self, manifest: Manifest) -> dict[str, Any]:
        """All but the steps, under names that our requests and diffusers' calls share."""
        side = manifest.sides.native
        return {"guidance_scale": self.guidance_scale, "height": side, "width": side}


@dataclass(frozen=True)
class Family:
    """The tasks whose pictures are scored and whose speed is measured; videos have none.

    ``workload`` is a name of ``WORKLOADS``: what is asked of the family beside another one.
    """

    quality: tuple[Task, ...]
    speed: tuple[Task, ...]
    workload: str


FEW_STEPS = (Task(4, 0.0), Task(1, 0.0))
# Pictures are scored at the guidance at which the miniature draws best: at the 7 that SD3 is made
# for, its colours run over. All else is at the family's own default.
TASKS = {
    "sd3": Family(quality=(Task(20, 1.5),), speed=(Task(20, 7.0),), workload="steps"),
    "sdxl": Family(quality=(Task(20, 5.0),), speed=(Task(20, 5.0),), workload="steps"),
    "sdxl_turbo": Family(quality=FEW_STEPS, speed=FEW_STEPS, workload="few"),
    "easyanimate": Family(quality=(), speed=(), workload="videos"),
}
