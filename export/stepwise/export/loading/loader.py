"""Loads one component of a checkpoint, whole or not at all."""

import logging
from typing import Any

import diffusers
import torch
import transformers

from stepwise.description.spec import Component
from stepwise.export.checkpoint.folder import INDEX, Checkpoint
from stepwise.export.checkpoint.safetensors_files import read_json, stored_as, weights
from stepwise.export.errors import CheckpointError, reason
from stepwise.export.loading.lora import fuse
from stepwise.export.loading.mapped_weights import as_stored
from stepwise.export.loading.single_file import Report, load_original
from stepwise.export.modules.architectures import ARCHITECTURES, Architecture
from stepwise.export.modules.exportable import Exportable
from stepwise.export.modules.t5 import ZeroText

# Weights of these types are mapped; others become float32 as they are read.
_TYPES = {"F16": torch.float16, "BF16": torch.bfloat16}


def load(checkpoint: Checkpoint, component: Component) -> Exportable:
    """A component in float32, in evaluation mode, wrapped with the spec's inputs and outputs.

    Weights are ``Stored``: mapped from the checkpoint's files, not read.

    A missing optional text encoder becomes one that returns zeros. Raises CheckpointError if names
    or shapes of the weights differ from the component's config.
    """
    if component.name in checkpoint.missing:
        width = checkpoint.setting(checkpoint.family.denoiser, "joint_attention_dim")
        return ZeroText(width).eval()
    architecture = _architecture(checkpoint, component)
    # Both libraries print bars and reports; CheckpointError sums those up in one sentence.
    for library in (transformers, diffusers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity(logging.CRITICAL)
    # Set on the wrapper: the exporter restores the mode that it finds there.
    return _read(checkpoint, component, architecture).eval()


def _architecture(checkpoint: Checkpoint, component: Component) -> Architecture:
    listed = read_json(checkpoint.folder / INDEX).get(component.subfolder)
    name = listed[1] if isinstance(listed, list) and len(listed) == 2 else listed
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise CheckpointError(
            f"{checkpoint.folder / INDEX} calls {component.subfolder} a {name}; "
            f"allowed are {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[name]


def _read(checkpoint: Checkpoint, component: Component, architecture: Architecture) -> Exportable:
    place = checkpoint.place(component)
    load_from = load_original if checkpoint.file else _load_folder
    # diffusers sets torch's default type to that of the weights, and leaves it so after an error.
    usual = torch.get_default_dtype()
    try:
        model, report = load_from(checkpoint, component, architecture)
        for problem in ("missing", "unexpected", "mismatched"):
            _refuse(problem, sorted(map(str, report[f"{problem}_keys"])), place)
        as_stored(model)
        fuse(checkpoint, component, model)
        _refuse("not finite", _not_finite(model), place)
        return architecture.exported(model, component)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged config can make both libraries raise anything
        raise CheckpointError(
            f"{place} cannot be loaded as {architecture.model.__name__}: {reason(error)}; "
            "its weights and config.json should come from the same model"
        ) from error
    finally:
        torch.set_default_dtype(usual)


def _load_folder(
    checkpoint: Checkpoint, component: Component, architecture: Architecture
) -> tuple[Any, Report]:
    folder = checkpoint.folder / component.subfolder
    found = weights(folder)
    dtype = {architecture.dtype: _TYPES.get(stored_as(found.files), torch.float32)}
    model, report = architecture.model.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
        variant=found.variant,
        **dtype,
        **architecture.options,
    )
    return model, report


def _not_finite(model: torch.nn.Module) -> list[str]:
    return [name for name, value in model.named_parameters() if not value.isfinite().all()]


def _refuse(problem: str, keys: list[str], place: str) -> None:
    if keys:
        raise CheckpointError(
            f"{place}: weights and config.json do not fit, {len(keys)} {problem}: "
            f"{', '.join(keys[:3])}{', …' if len(keys) > 3 else ''}; both should come from the "
            "same model"
        )
