"""Loads one component from a file in the original layout; diffusers translates the names.

diffusers skips unknown names and leaves missing weights random, so both are reported here. Weights
are mapped into memory, not read.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import ModelMixin
from diffusers.loaders import single_file_utils as layouts
from safetensors import safe_open
from torch import Tensor

from stepwise.description.spec import Component
from stepwise.export.checkpoint.folder import Checkpoint
from stepwise.export.checkpoint.safetensors_files import read_json
from stepwise.export.checkpoint.single_file import SPARE
from stepwise.export.modules.architectures import Architecture

State = dict[str, Tensor]
Report = dict[str, set[str]]


def _open_clip(state: State, config: Mapping[str, Any], prefix: str) -> State:
    sizes = SimpleNamespace(config=SimpleNamespace(hidden_size=config["hidden_size"]))
    return dict(layouts.convert_open_clip_checkpoint(sizes, state, prefix=prefix))


# Arguments are the weights by their names with the prefix, the config, and the prefix.
_CONVERT: dict[str, Callable[[State, Mapping[str, Any], str], State]] = {
    "text_encoder": lambda state, *_: layouts.convert_ldm_clip_checkpoint(state),
    "text_encoder_2": _open_clip,
    "unet": lambda state, config, _: layouts.convert_ldm_unet_checkpoint(state, config),
    "vae": lambda state, config, _: layouts.convert_ldm_vae_checkpoint(state, config),
}
# OpenCLIP's conversion copies these weights and passes on all others.
_COPIED = ("attn.in_proj_weight", "attn.in_proj_bias", "text_projection")


def load_original(
    checkpoint: Checkpoint, component: Component, architecture: Architecture
) -> tuple[Any, Report]:
    """The model of ``component``, and a report of names that do not fit.

    The report has ``missing_keys``, ``unexpected_keys`` and ``mismatched_keys``; the model is
    complete only if all are empty.
    """
    folder = checkpoint.folder / component.subfolder
    state, unread = _read(checkpoint, component)
    if issubclass(architecture.model, ModelMixin):
        model, report = _fill(architecture.model, folder, state)
    else:
        config = architecture.model.config_class.from_pretrained(folder, local_files_only=True)
        options = {architecture.dtype: _common(state), **architecture.options}
        model, report = architecture.model.from_pretrained(
            None, config=config, state_dict=state, output_loading_info=True, **options
        )
    return model, {**report, "unexpected_keys": {*report["unexpected_keys"], *unread}}


def _read(checkpoint: Checkpoint, component: Component) -> tuple[State, set[str]]:
    """A component's weights by diffusers' names, and the names that the conversion dropped."""
    assert checkpoint.layout is not None
    prefix = checkpoint.layout.prefixes[component.subfolder]
    with safe_open(checkpoint.file, framework="pt") as file:
        names = [n for n in file.keys() if n.startswith(prefix) and not SPARE.fullmatch(n)]  # noqa: SIM118
        source: State = {name: file.get_tensor(name) for name in names}
    config = read_json(checkpoint.folder / component.subfolder / "config.json")
    converted = _CONVERT[component.subfolder](source, config, prefix)
    state = {name: value for name, value in converted.items() if value is not None}
    read = {value.data_ptr() for value in state.values()}
    return state, {
        name
        for name, value in source.items()
        if value.data_ptr() not in read and not name.endswith(_COPIED)
    }


def _common(state: State) -> torch.dtype:
    """The type of all float weights; float32 if they differ."""
    kinds = {value.dtype for value in state.values() if value.is_floating_point()}
    return kinds.pop() if len(kinds) == 1 else torch.float32


def _fill(kind: Any, folder: Path, state: State) -> tuple[Any, Report]:
    """A diffusers model with ``state`` as its weights; no others are allocated."""
    with torch.device("meta"):
        model = kind.from_config(kind.load_config(folder, local_files_only=True))
    due = model.state_dict()
    shared = due.keys() & state.keys()
    report = {
        "missing_keys": due.keys() - shared,
        "unexpected_keys": state.keys() - shared,
        "mismatched_keys": {name for name in shared if due[name].shape != state[name].shape},
    }
    if not any(report.values()):
        model.load_state_dict(state, assign=True)
    return model, report
