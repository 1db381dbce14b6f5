"""The types of a family's exporter settings, which each family has in one literal."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from stepwise.description.family import Family
from stepwise.description.manifest import VideoLayout
from stepwise.export.checkpoint.folder import Checkpoint, SingleFile


@dataclass(frozen=True)
class KeepInFp32:
    """Selects nodes that stay in float32 by the torch module that they were traced from.

    ``module`` is a pattern for its dotted path, where ``*`` is any text. ``operators`` limits the
    selection to these ONNX operators; none means all.
    """

    module: str
    operators: tuple[str, ...] = ()


@dataclass(frozen=True)
class Keep:
    """The nodes of one component that stay in float32 in a float16 graph."""

    component: str
    rows: tuple[KeepInFp32, ...]

    def includes(self, module: str, operator: str) -> bool:
        """Whether a node of this ONNX operator, traced from this torch module, is kept."""
        return self.includes_all(module) or any(
            fnmatchcase(module, row.module) and operator in row.operators for row in self.rows
        )

    def includes_all(self, module: str) -> bool:
        """Whether a whole torch module is kept, including its weights."""
        return any(fnmatchcase(module, row.module) and not row.operators for row in self.rows)


@dataclass(frozen=True)
class Calibration:
    """How calibration draws pictures: with just enough steps to cover all noise levels."""

    steps: int
    guidance_scale: float


def as_described(checkpoint: Checkpoint) -> Family:
    """The family of a checkpoint, without further settings from its configs."""
    return checkpoint.family


def no_video(checkpoint: Checkpoint) -> VideoLayout | None:
    """None, as a family of pictures has no layout of videos."""
    return None


@dataclass(frozen=True)
class FamilyExport:
    """Exporter settings of a family.

    ``keep_in_fp32`` lists, by component, the nodes that stay in float32 in a float16 graph.
    ``served(checkpoint)`` is the family completed from the checkpoint's configs; it raises
    CheckpointError for an unsupported model. ``video_layout(checkpoint)`` is the layout that
    requests for videos depend on. ``single_file`` is the layout of single-file checkpoints, if
    there is one. ``calibration`` is set for families with a UNet, which can be quantized.
    """

    keep_in_fp32: Mapping[str, tuple[KeepInFp32, ...]]
    served: Callable[[Checkpoint], Family] = as_described
    video_layout: Callable[[Checkpoint], VideoLayout | None] = no_video
    single_file: SingleFile | None = None
    calibration: Calibration | None = None

    def keep(self, component: str) -> Keep:
        """The nodes of a component that stay in float32."""
        return Keep(component, self.keep_in_fp32[component])


# Operators that sum over many values, and those that decide how a picture is rounded.
EVERYWHERE = (
    KeepInFp32("*", ("InstanceNormalization", "LayerNormalization", "ReduceMean", "Softmax")),
    KeepInFp32("*norm"),
)
