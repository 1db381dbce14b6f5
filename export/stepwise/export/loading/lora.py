"""Fuses LoRAs into a component's weights.

The formula is that of arXiv 2106.09685, W + scale * alpha / rank * up @ down. diffusers translates
names of kohya's layout and its own older ones. Every name is then matched with the model, because
diffusers itself skips names that do not fit.
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
from diffusers.utils import state_dict_utils
from safetensors import safe_open
from torch import Tensor, nn

from stepwise.description.spec import Component
from stepwise.export.checkpoint.folder import Checkpoint
from stepwise.export.checkpoint.lora_file import Lora, check_lora
from stepwise.export.errors import CheckpointError, reason
from stepwise.export.loading.mapped_weights import Addition, add

State = dict[str, Tensor]
_DOWN = re.compile(r"(.+?)[._](lora_down|lora_A|lora\.down|lora_linear_layer\.down)\.weight")
_UPS = {"lora_down": "lora_up", "lora_A": "lora_B", ".down.": ".up."}
_A, _B = ".lora_A.weight", ".lora_B.weight"
_IMAGE = state_dict_utils.UNET_TO_DIFFUSERS
_TEXT = {
    **_IMAGE,
    **state_dict_utils.DIFFUSERS_OLD_TO_PEFT,
    **state_dict_utils.DIFFUSERS_TO_PEFT,
}
# The key of PEFT's settings in a file's metadata, as diffusers writes it.
_SETTINGS = "lora_adapter_metadata"
# Patterns that take little time to match with any name: no groups, few repetitions.
_PATTERN = re.compile(r"([\w.\\^$|-]|\.\*){1,300}")
_MOST_STARS = 3
# Names of kohya's that diffusers translates wrongly, and equivalents that it translates correctly.
_SAME = {"add_embedding_linear_1": "label_emb_0_0", "add_embedding_linear_2": "label_emb_0_2"}
_ADVICE = "give a LoRA that was trained on this family"


@dataclass(frozen=True)
class _Layer:
    """``down`` (rank, inputs, …), and ``up`` (outputs, rank, …) times alpha / rank; float32."""

    down: Tensor
    up: Tensor


def fuse(checkpoint: Checkpoint, component: Component, model: nn.Module) -> None:
    """Add the checkpoint's LoRA layers for ``component`` to the weights of ``model``.

    Raises CheckpointError, with some of the names, if a layer does not fit the checkpoint.
    """
    prefix = f"{component.subfolder}."
    # transformers 5 flattened CLIPTextModel, but files keep the nested names.
    flat = "" if hasattr(model, "text_model") else "text_model."
    modules = dict(model.named_modules())
    for lora in checkpoint.loras:
        layout, layers = _layers(checkpoint, lora)
        _refuse_others(checkpoint, lora, layout, layers)
        ours = {n.removeprefix(prefix): layers[n] for n in layers if n.startswith(prefix)}
        ours = {name.removeprefix(flat): layer for name, layer in ours.items()}
        _refuse(lora, layout, component.subfolder, [n for n in ours if not _fits(modules.get(n))])
        for name, layer in ours.items():
            _add(lora, prefix + name, layer, modules[name])


def _fits(module: nn.Module | None) -> bool:
    return isinstance(module, nn.Linear | nn.Conv2d)


def _refuse_others(checkpoint: Checkpoint, lora: Lora, layout: str, layers: Iterable[str]) -> None:
    """Refuse names that belong to no component, which each component would skip."""
    components = checkpoint.family.components
    known = {part.subfolder for part in components if part.name not in checkpoint.missing}
    others = [name for name in layers if name.partition(".")[0] not in known]
    _refuse(lora, layout, checkpoint.family.name, others)


def _refuse(lora: Lora, layout: str, place: str, strangers: list[str]) -> None:
    if strangers:
        raise CheckpointError(
            f"{lora.file} (names of {layout}) does not fit the checkpoint: {place} has none of "
            f"{len(strangers)} layers, {', '.join(strangers[:3])}"
            f"{', …' if len(strangers) > 3 else ''}; {_ADVICE}"
        )


def _add(lora: Lora, name: str, layer: _Layer, module: nn.Module) -> None:
    weight = module.get_parameter("weight")
    outputs, inputs = len(layer.up), layer.down[0].numel()
    if (outputs, inputs) != (len(weight), weight[0].numel()):
        raise CheckpointError(
            f"{lora.file}: {name} is {list(layer.up.shape)} @ {list(layer.down.shape)} where the "
            f"checkpoint's weight is {list(weight.shape)}; {_ADVICE}"
        )
    add(module, Addition(layer.up, layer.down, lora.scale))


def _layers(checkpoint: Checkpoint, lora: Lora) -> tuple[str, dict[str, _Layer]]:
    """A file's layout, and its layers by component and module, as in ``unet.conv_in``."""
    layout, state = check_lora(lora), _scaled(lora)
    translated = _from_kohya(checkpoint, lora, state) if layout == "kohya" else state
    translated = _todays_names(translated)
    if len(translated) != len(state):
        raise CheckpointError(
            f"{lora.file} names layers in more than one layout; allowed is one layout per layer"
        )
    stems = [name.removesuffix(_A) for name in translated if name.endswith(_A)]
    return layout, {s: _Layer(translated[s + _A], translated[s + _B]) for s in stems}


def _scaled(lora: Lora) -> State:
    """A file's matrices by their names, ``up`` times alpha / rank, in float32."""
    with safe_open(lora.file, framework="pt") as file:
        left = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        settings = _settings(lora, (file.metadata() or {}).get(_SETTINGS, "{}"))
    state: State = {}
    for name in filter(_DOWN.fullmatch, list(left)):
        base, up = _base(name), _up(name)
        if up not in left:
            raise CheckpointError(f"{lora.file} has {name} but no {up}; download it again")
        alpha = left.pop(f"{base}.alpha", None)
        state[name], state[up] = left.pop(name), left.pop(up)
        factor = _factor(settings, base, len(state[name]), alpha)
        _check_layer(lora, base, state[name], state[up], factor)
        state[up] = state[up] * factor
    if left:
        raise CheckpointError(
            f"{lora.file} has {', '.join(list(left)[:3])} without the rest of the layer; download "
            "it again"
        )
    if not any(value.any() for name, value in state.items() if not _DOWN.fullmatch(name)):
        raise CheckpointError(f"{lora.file} would change nothing, as it is untrained; give another")
    return state


def _settings(lora: Lora, text: str) -> dict[str, Any]:
    """PEFT's settings of each component."""
    try:
        settings = dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{lora.file}: its {_SETTINGS} is no JSON object ({reason(error)}); download it again"
        ) from error
    for key, patterns in settings.items():
        for pattern in (patterns or ()) if key.endswith(".alpha_pattern") else ():
            if not _PATTERN.fullmatch(pattern) or pattern.count("*") > _MOST_STARS:
                raise CheckpointError(
                    f"{lora.file}: got {pattern[:100]!r} in {key}; allowed are names of modules "
                    f"with up to {_MOST_STARS} '.*'"
                )
    return settings


def _base(name: str) -> str:
    return _DOWN.sub(r"\1", name)


def _up(name: str) -> str:
    for down, up in _UPS.items():
        name = name.replace(down, up)
    return name


def _check_layer(lora: Lora, base: str, down: Tensor, up: Tensor, factor: float) -> None:
    if up.dim() < 2 or down.dim() < 2 or up[0].numel() != len(down):
        raise CheckpointError(
            f"{lora.file}: the ranks of {base} differ: down is {list(down.shape)}, up "
            f"{list(up.shape)}; download it again"
        )
    if not (down.isfinite().all() and up.isfinite().all() and math.isfinite(factor) and factor):
        raise CheckpointError(
            f"{lora.file}: {base} has values that are not finite or an alpha of 0; download "
            "it again"
        )


def _factor(settings: dict[str, Any], base: str, rank: int, alpha: Tensor | None) -> float:
    """Alpha / rank, where alpha is a tensor of kohya's, a setting of PEFT's, or else the rank."""
    if alpha is not None:
        return float(alpha.flatten()[0]) / rank
    component, _, module = base.partition(".")
    value = settings.get(f"{component}.lora_alpha") or rank
    for pattern, special in (settings.get(f"{component}.alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            value = special
            break
    return float(value) / (math.sqrt(rank) if settings.get(f"{component}.use_rslora") else rank)


def _from_kohya(checkpoint: Checkpoint, lora: Lora, state: State) -> State:
    """Translate names of kohya's trainer, with either library's blocks, to diffusers' names."""
    if checkpoint.family.denoiser.subfolder != "unet":
        raise CheckpointError(
            f"{lora.file} has names of kohya, which are supported only for UNets; give "
            f"{checkpoint.family.name} a LoRA with names of PEFT or diffusers"
        )
    blocks = checkpoint.integer(checkpoint.family.denoiser, "layers_per_block")
    for mistaken, same in _SAME.items():
        state = {name.replace(mistaken, same): value for name, value in state.items()}
    try:
        translated, _ = StableDiffusionXLLoraLoaderMixin.lora_state_dict(
            state, unet_config=SimpleNamespace(layers_per_block=blocks)
        )
    except Exception as error:  # names of another model can make the library raise anything
        raise CheckpointError(
            f"{lora.file} has names of kohya unknown to diffusers ({reason(error)}); {_ADVICE}"
        ) from error
    return dict(translated)


def _todays_names(state: State) -> State:
    """Rename to ``lora_A.weight`` and ``lora_B.weight`` after a component and a module."""
    renamed: State = {}
    for name, value in state.items():
        table = _TEXT if name.startswith("text_encoder") else _IMAGE
        renamed |= state_dict_utils.convert_state_dict({name: value}, table)
    return renamed
