"""Opens a single-file checkpoint, and names the model in a file that is not one of SDXL.

The layout is that of https://github.com/Stability-AI/generative-models, in which model sites
publish fine-tunes. Such a file holds only weights: configs and tokenizers come from a diffusers
folder, by default the family's own.
"""

import re
from dataclasses import replace
from pathlib import Path

from stepwise.description.family import Family
from stepwise.export.checkpoint.folder import Checkpoint, SingleFile, open_folder
from stepwise.export.checkpoint.safetensors_files import Shapes, check_file, check_sizes
from stepwise.export.errors import CheckpointError

_TEXTS = ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model.")
# Leftovers of training and merging, which no picture depends on.
SPARE = re.compile(
    r"model_ema\..+|denoiser\.sigmas|.+\.position_ids|.+\.logit_scale|(.+_)?betas|logvar"
    r"|(.+_)?alphas_cumprod(_prev)?|posterior_.+"
)
# The kind of a file by the name of one of its weights; the first match counts.
_KINDS = (
    (r"lora_(unet|te\d?)_.+|.+[._]lora(_[AB]|_linear_layer)?\..+", "a LoRA, for --lora"),
    (r"(.+\.)?double_blocks\.0\..+", "a Flux model"),
    (r"(.+\.)?joint_blocks\.0\..+", "a Stable Diffusion 3 model"),
    (r"cond_stage_model\.transformer\..+", "a Stable Diffusion 1 model"),
    (r"cond_stage_model\.model\..+", "a Stable Diffusion 2 model"),
    (r"conditioner\.embedders\.0\.model\..+", "an SDXL refiner"),
    (r"edm_(mean|std)", "a Playground 2.5 model"),
    (r"(down_blocks|encoder\.down_blocks|text_model|transformer_blocks)\..+", "one component"),
)
# Latents, a mask and masked latents.
_INPAINTING = 9
_INPUT = "model.diffusion_model.input_blocks.0.0.weight"
_TEXT = r".*\.attn2\.to_k\.weight"
# Models by the width of the text that their UNets attend to.
_UNETS = {
    768: "Stable Diffusion 1",
    1024: "Stable Diffusion 2",
    1280: "the SDXL refiner",
    2048: "SDXL",
}


def open_original(
    file: Path, family: Family, layout: SingleFile | None, config: Path | None
) -> Checkpoint:
    """Open ``file`` as a checkpoint of ``family``, with the configs and tokenizers of ``config``.

    ``layout`` is the family's, None if it has no single-file checkpoints. Weights are not read.

    Raises CheckpointError if the file is truncated, holds another model, or has unknown names.
    """
    if file.suffix != ".safetensors":
        raise CheckpointError(f"{file} is no .safetensors file; give one, or a diffusers folder")
    shapes = check_file(file)
    kind = _kind(shapes)
    if layout is None or kind != "":
        raise CheckpointError(
            f"{file} holds {kind or 'an SDXL model'}, but {family.name} is exported from "
            f"{_allowed(family, layout)}"
        )
    opened = open_folder(config or layout.configs, family, file)
    checkpoint = replace(opened, layout=layout)
    _check_names(checkpoint, layout, shapes)
    return checkpoint


def _allowed(family: Family, layout: SingleFile | None) -> str:
    folder = f"a folder that holds a {family.diffusers_class} in the diffusers layout"
    single = "one .safetensors file of an SDXL model, or " if layout else ""
    return f"{single}{folder}; give one"


def _kind(shapes: Shapes) -> str:
    """The kind of model in a file; an empty string for SDXL."""
    for pattern, kind in _KINDS:
        if any(re.fullmatch(pattern, name) for name in shapes):
            return kind
    if _width(shapes.get(_INPUT, ())) == _INPAINTING:
        return "an inpainting model"
    if any(name.startswith(_TEXTS) for name in shapes):
        return ""
    widths = [_width(shape) for name, shape in shapes.items() if re.fullmatch(_TEXT, name)]
    if widths:
        known = _UNETS.get(widths[0], "another model")
        return f"a UNet without text encoders, with texts as wide as those of {known}"
    return f"an unknown model ({', '.join(list(shapes)[:3])}, …)"


def _width(shape: tuple[int, ...]) -> int:
    return (*shape, 0, 0)[1]


def _check_names(checkpoint: Checkpoint, layout: SingleFile, shapes: Shapes) -> None:
    strangers = [n for n in shapes if not n.startswith(tuple(layout.prefixes.values()))]
    strangers = [name for name in strangers if not SPARE.fullmatch(name)]
    if strangers:
        raise CheckpointError(
            f"{checkpoint.file} is not quite an SDXL model: {len(strangers)} unexpected names: "
            f"{', '.join(strangers[:3])}; export it from the diffusers layout"
        )
    for component in checkpoint.family.components:
        prefix = layout.prefixes[component.subfolder]
        inside = {name: shape for name, shape in shapes.items() if name.startswith(prefix)}
        if not inside:
            raise CheckpointError(
                f"{checkpoint.file} lacks {component.name}: no name begins with {prefix}; give the "
                "whole checkpoint"
            )
        try:
            check_sizes(checkpoint.folder / component.subfolder / "config.json", inside)
        except CheckpointError as error:
            raise CheckpointError(
                f"{checkpoint.file}: {error}, or give its own --config"
            ) from error
