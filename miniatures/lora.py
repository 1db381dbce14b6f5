"""Trains a LoRA (arXiv 2106.09685) for the SDXL miniature that draws shapes in outline.

The file has the layout of diffusers' ``save_lora_weights`` with PEFT: ``lora_A`` and ``lora_B`` of
each layer, added as ``scale * lora_B @ lora_A``.
"""

from pathlib import Path

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrize

from miniatures import sdxl
from miniatures.training import Recipe, fit

RECIPE = Recipe("sdxl_outline", steps=600, rate=2e-3, mixed=True)
RANK = 8
LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")


class _LowRank(nn.Module):
    """Adds a matrix of rank 8, initially zero, to a weight (out, in)."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.lora_A = nn.Parameter(torch.randn(RANK, inputs) / inputs**0.5)
        self.lora_B = nn.Parameter(torch.zeros(outputs, RANK))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.lora_B @ self.lora_A


def adapt(unet: nn.Module) -> None:
    """Freeze ``unet`` and add a trainable low-rank matrix to each of ``LAYERS``."""
    unet.requires_grad_(False)
    layers = [layer for name, layer in unet.named_modules() if name.endswith(LAYERS)]
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", _LowRank(*layer.weight.shape))


def save(unet: nn.Module, output: Path) -> None:
    """Write the LoRA weights of ``unet`` to ``pytorch_lora_weights.safetensors``, fp16."""
    weights = {
        f"unet.{name.replace('.parametrizations.weight.0', '')}.weight": weight.detach().half()
        for name, weight in unet.named_parameters()
        if ".lora_" in name
    }
    output.mkdir(parents=True, exist_ok=True)
    save_file(weights, output / "pytorch_lora_weights.safetensors", {"format": "pt"})


def train(output: Path, state: Path, seed: int = 0) -> None:
    """Train on the checkpoint ``sdxl`` next to ``output``; save the last weights.

    The run is too short for the moving average to forget the initial weights.
    """
    torch.manual_seed(seed)
    base = output.with_name("sdxl")
    pipeline = StableDiffusionXLPipeline.from_pretrained(base, local_files_only=True)
    model = sdxl.Sdxl()
    model.clip_l, model.clip_g = pipeline.text_encoder, pipeline.text_encoder_2
    model.unet = pipeline.unet
    model.requires_grad_(False)
    adapt(model.unet)
    scenes = sdxl.dataset(model, base / "vae", seed, outlined=True)
    alphas = EulerDiscreteScheduler(**sdxl.SCHEDULE).alphas_cumprod
    fit(RECIPE, model, lambda _: sdxl.loss(model, alphas, scenes.batch(sdxl.BATCH)), state)
    save(model.unet, output)
