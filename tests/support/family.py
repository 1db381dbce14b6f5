"""Loads SDXL checkpoints for tests."""

from pathlib import Path

from torch import nn

from stepwise.export.checkpoint.folder import Checkpoint
from stepwise.export.loading.loader import load
from stepwise.export.repository.keys import export_key
from stepwise.export.repository.layout import Target
from stepwise.families import FAMILIES

SD3, SDXL = FAMILIES["sd3"], FAMILIES["sdxl"]
PARTS = {component.subfolder: component for component in SDXL.components}


def load_model(checkpoint: Checkpoint, subfolder: str) -> nn.Module:
    """A component as a model of its own library."""
    model: nn.Module = load(checkpoint, PARTS[subfolder]).model
    return model


def key(checkpoint: Checkpoint) -> str:
    """The key of a checkpoint's export."""
    return export_key(Target(checkpoint, Path("repository"), checkpoint.family.name))
