"""Opens a checkpoint that is one file in its authors' layout, and says what else it may be.

The layout is that of https://github.com/Stability-AI/generative-models, in which model sites
publish fine-tunes. Such a file holds weights alone: configs and tokenizers come from a diffusers
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
# What training and merging leave in a file, and no picture depends on.
SPARE = re.compile(
    r"model_ema\..+|denoiser\.sigmas|.+\.position_ids|.+\.logit_scale|(.+_)?betas|logvar"
    r"|(.+_)?alphas_cumprod(_prev)?|posterior_.+"
)
# What a file is by a name that it has; the first that fits.
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
# By the width of a text that a UNet attends to.
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

    ``layout`` is the family's, None if it has no checkpoints in one file.

    Raises CheckpointError if it is truncated, another family's, or has names that nobody reads.
    Weights are not read.
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
    """What a file holds if it is no SDXL model; an empty string if it is."""
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
        return f"a UNet without text encoders, by the width of its text that of {known}"
    return f"a model that is not known ({', '.join(list(shapes)[:3])}, …)"


def _width(shape: tuple[int, ...]) -> int:
    return (*shape, 0, 0)[1]


def _check_names(checkpoint: Checkpoint, layout: SingleFile, shapes: Shapes) -> None:
    strangers = [n for n in shapes if not n.startswith(tuple(layout.prefixes.values()))]
    strangers = [name for name in strangers if not SPARE.fullmatch(name)]
    if strangers:
        raise CheckpointError(
            f"{checkpoint.file} is not quite an SDXL model: {len(strangers)} unexpected: "
            f"{', '.join(strangers[:3])}; export it from the diffusers layout"
        )
    for component in checkpoint.family.components:
        prefix = layout.prefixes[component.subfolder]
        inside = {name: shape for name, shape in shapes.items() if name.startswith(prefix)}
        if not inside:
            raise CheckpointError(
                f"{checkpoint.file} lacks {component.name}: names that begin with {prefix} should "
                "be there; give the whole checkpoint"
            )
        try:
            check_sizes(checkpoint.folder / component.subfolder / "config.json", inside)
        except CheckpointError as error:
            raise CheckpointError(
                f"{checkpoint.file}: {error}, or give its own --config"
            ) from error
