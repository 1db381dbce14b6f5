"""SDXL as far as loading a checkpoint goes."""

from dataclasses import replace

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel

from export.checkpoint import Checkpoint
from export.components import ARCHITECTURES, Architecture
from export.loading import load
from pipelines import PIPELINES

SD3 = PIPELINES["sd3"]
SDXL = replace(
    SD3,
    family="sdxl",
    diffusers_class="StableDiffusionXLPipeline",
    encoders=SD3.encoders[:2],
    denoiser=replace(SD3.denoiser, name="unet", subfolder="unet"),
)
PARTS = {component.subfolder: component for component in SDXL.components}
for _kind, _like in (
    (CLIPTextModel, "CLIPTextModelWithProjection"),
    (UNet2DConditionModel, "AutoencoderKL"),
):
    ARCHITECTURES.setdefault(
        _kind.__name__, Architecture(_kind, torch.nn.Sequential, ARCHITECTURES[_like].options)
    )


def load_model(checkpoint: Checkpoint, subfolder: str) -> torch.nn.Module:
    """A component as its library has it."""
    return next(iter(load(checkpoint, PARTS[subfolder]).children()))
