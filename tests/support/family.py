"""SDXL as far as loading a checkpoint goes."""

from pathlib import Path

from torch import nn

from export.checkpoint import Checkpoint
from export.keys import export_key
from export.loading import load
from export.target import Target
from pipelines import PIPELINES

SD3, SDXL = PIPELINES["sd3"], PIPELINES["sdxl"]
PARTS = {component.subfolder: component for component in SDXL.components}


def load_model(checkpoint: Checkpoint, subfolder: str) -> nn.Module:
    """A component as its library has it."""
    model: nn.Module = load(checkpoint, PARTS[subfolder]).model
    return model


def key(checkpoint: Checkpoint) -> str:
    """The key of an export of a checkpoint."""
    return export_key(Target(checkpoint, Path("repository"), checkpoint.pipeline.family))
