"""What the exporter has to know of a family besides its description, in one literal each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from stepwise.description.family import Family
from stepwise.description.manifest import VideoLayout
from stepwise.export.checkpoint.folder import Checkpoint, SingleFile


@dataclass(frozen=True)
class KeepInFp32:
    """Nodes of the torch module whose dotted path matches ``module``, where ``*`` is any text.

    ``operators`` are the ONNX operators among them that are meant; none means all.
    """

    module: str
    operators: tuple[str, ...] = ()


@dataclass(frozen=True)
class Keep:
    """What of one component stays in float32 when the rest is computed in float16."""

    component: str
    rows: tuple[KeepInFp32, ...]

    def includes(self, module: str, operator: str) -> bool:
        """Whether a node of this ONNX operator, traced from this torch module, is kept."""
        return self.includes_all(module) or any(
            fnmatchcase(module, row.module) and operator in row.operators for row in self.rows
        )

    def includes_all(self, module: str) -> bool:
        """Whether a whole torch module is kept, and so are its weights."""
        return any(fnmatchcase(module, row.module) and not row.operators for row in self.rows)


@dataclass(frozen=True)
class Calibration:
    """How pictures are drawn to measure a UNet: no more steps than show all noise levels."""

    steps: int
    guidance_scale: float


def as_described(checkpoint: Checkpoint) -> Family:
    """The family of a checkpoint, of which nothing more has to be known."""
    return checkpoint.family


def no_video(checkpoint: Checkpoint) -> VideoLayout | None:
    """The layout of videos of a family that makes pictures."""
    return None


@dataclass(frozen=True)
class FamilyExport:
    """What the exporter has to know of a family.

    ``keep_in_fp32`` gives each component by name what stays in float32 in a float16 graph.
    ``served(checkpoint)`` is the family with what only the checkpoint's configs say; it raises
    CheckpointError for a model that is not served. ``video_layout(checkpoint)`` is what requests
    for videos depend on. ``single_file`` is the layout of checkpoints in one file, if there is
    one, ``calibration`` is of families with a UNet, which can be quantized.
    """

    keep_in_fp32: Mapping[str, tuple[KeepInFp32, ...]]
    served: Callable[[Checkpoint], Family] = as_described
    video_layout: Callable[[Checkpoint], VideoLayout | None] = no_video
    single_file: SingleFile | None = None
    calibration: Calibration | None = None

    def keep(self, component: str) -> Keep:
        """What stays in float32 of a component."""
        return Keep(component, self.keep_in_fp32[component])


# What sums over many values, and what a picture's rounding hangs on.
EVERYWHERE = (
    KeepInFp32("*", ("InstanceNormalization", "LayerNormalization", "ReduceMean", "Softmax")),
    KeepInFp32("*norm"),
)
