"""Loads one component of a checkpoint, whole or not at all."""

import logging
from pathlib import Path
from typing import Any

import diffusers
import transformers

from export.checkpoint import INDEX, Checkpoint
from export.components import ARCHITECTURES, Architecture, Exportable, ZeroText
from export.errors import CheckpointError
from export.weights import read_json
from pipelines.spec import Component


def load(checkpoint: Checkpoint, component: Component) -> Exportable:
    """A component in float32, in evaluation mode, wrapped with the spec's inputs and outputs.

    A missing optional text encoder becomes one that gives zeros. Raises CheckpointError if the
    weights' names or shapes are not those that the component's config asks for.
    """
    if component.name in checkpoint.missing:
        width = checkpoint.setting(checkpoint.pipeline.denoiser, "joint_attention_dim")
        return ZeroText(width).eval()
    architecture = _architecture(checkpoint, component)
    # Both libraries print bars and reports of what we turn into one sentence.
    for library in (transformers, diffusers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity(logging.CRITICAL)
    # The mode is set on the wrapper: the exporter restores what it finds there.
    return architecture.wrap(_read(checkpoint, component, architecture)).eval()


def _architecture(checkpoint: Checkpoint, component: Component) -> Architecture:
    listed = read_json(checkpoint.folder / INDEX).get(component.subfolder)
    name = listed[1] if isinstance(listed, list) and len(listed) == 2 else listed
    if name not in ARCHITECTURES:
        raise CheckpointError(
            f"{checkpoint.folder / INDEX} calls {component.subfolder} a {name}; "
            f"allowed are {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[name]


def _read(checkpoint: Checkpoint, component: Component, architecture: Architecture) -> Any:
    folder = checkpoint.folder / component.subfolder
    try:
        model, report = architecture.model.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **architecture.options,
        )
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split()).split(". ")[0]
        raise CheckpointError(
            f"{folder} cannot be loaded as {architecture.model.__name__}: {reason}; "
            "its weights and config.json should come from the same model"
        ) from error
    for problem in ("missing", "unexpected", "mismatched"):
        _refuse(problem, sorted(map(str, report[f"{problem}_keys"])), folder)
    return model


def _refuse(problem: str, keys: list[str], folder: Path) -> None:
    if keys:
        raise CheckpointError(
            f"{folder}: weights and config.json do not fit, {len(keys)} {problem}: "
            f"{', '.join(keys[:3])}{', …' if len(keys) > 3 else ''}; both should come from the "
            "same model"
        )
