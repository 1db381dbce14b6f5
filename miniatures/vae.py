"""Trains the miniatures' autoencoder on drawn scenes."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn.functional import l1_loss, mse_loss

from miniatures import checkpoints
from miniatures.captions import TRAINING
from miniatures.scenes import SIDE, draw
from miniatures.training import Recipe, fit

PICTURES_PER_SCENE = 12
BATCH = 32
LEARNING_RATE = 2e-3
KL_WEIGHT = 1e-4
EDGE_WEIGHT = 0.5


def pictures(per_scene: int, seed: int, outlined: bool = False) -> torch.Tensor:
    """Drawn training scenes, float32 in [-1, 1], shape (648 * per_scene, 3, 64, 64)."""
    rng = random.Random(seed)
    drawn = np.stack([draw(scene, rng, outlined) for scene in TRAINING for _ in range(per_scene)])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def autoencoder(**layout: Any) -> AutoencoderKL:
    """An untrained AutoencoderKL with one layer per block, for pictures of 64 x 64.

    ``layout`` holds further config fields; each block of ``block_out_channels`` but the last halves
    the sides.
    """
    levels = len(layout["block_out_channels"])
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=SIDE,
        **layout,
    )


def _edges(picture: torch.Tensor) -> torch.Tensor:
    """Differences between horizontal and between vertical neighbours, flattened and joined."""
    return torch.cat(
        [picture.diff(dim=-1).flatten(1), picture.diff(dim=-2).flatten(1)],
        dim=1,
    )


def _loss(model: AutoencoderKL, batch: torch.Tensor, half: bool) -> tuple[torch.Tensor, float]:
    """The training loss, and the plain mean squared error for the log."""
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        posterior = model.encode(batch).latent_dist
        decoded = model.decode(posterior.sample()).sample
    decoded = decoded.float()
    squared = mse_loss(decoded, batch)
    sharpness = l1_loss(_edges(decoded), _edges(batch))
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    return squared + EDGE_WEIGHT * sharpness + KL_WEIGHT * kl, squared.item()


def _means(model: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """The mean of each picture's latent distribution."""
    return torch.cat([model.encode(batch).latent_dist.mean for batch in images.split(256)])


def normalize(model: AutoencoderKL, images: torch.Tensor) -> None:
    """Give the latents of ``images`` zero mean and unit variance after the pipelines' scaling.

    SDXL's pipeline does not shift latents, so there each channel's mean goes into the 1 x 1
    convolutions.
    """
    latents = _means(model, images)
    if model.config.use_quant_conv:
        mean = latents.mean(dim=(0, 2, 3))
        model.quant_conv.bias[: len(mean)] -= mean
        model.post_quant_conv.bias += model.post_quant_conv.weight.flatten(1) @ mean
        latents -= mean.view(-1, 1, 1)
    else:
        model.register_to_config(shift_factor=latents.mean().item())
    model.register_to_config(scaling_factor=1 / latents.std().item())


@torch.no_grad()
def encode(model: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """The denoiser's latents of ``images``: shifted and scaled."""
    return (_means(model, images) - (model.config.shift_factor or 0)) * model.config.scaling_factor


def _contrast(images: torch.Tensor) -> torch.Tensor:
    """The distance between shape and background colour, per picture or video (batch, 1, …)."""
    distances = (images - images[..., :1, :1]).norm(dim=1, keepdim=True)
    return distances.amax(dim=tuple(range(1, images.ndim)), keepdim=True)


def relative_loss(decoded: torch.Tensor, batch: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The error in units of the contrast, so that low contrast counts too, and the plain error.

    Pictures are (batch, 3, height, width) and videos (batch, 3, frames, height, width).
    """
    contrast = _contrast(batch)
    squared = mse_loss(decoded / contrast, batch / contrast)
    sharpness = l1_loss(_edges(decoded / contrast), _edges(batch / contrast))
    return squared + EDGE_WEIGHT * sharpness, mse_loss(decoded, batch).item()


def sharpen(folder: Path, steps: int, images: torch.Tensor, state: Path) -> None:
    """Continue training the decoder of the autoencoder in ``folder``; its latents do not change."""
    model = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32)
    model.encoder.requires_grad_(False)
    model.quant_conv.requires_grad_(False)

    def loss(_: float) -> tuple[torch.Tensor, float]:
        batch = images[torch.randint(len(images), (BATCH,))]
        with torch.no_grad():
            posterior = model.encode(batch).latent_dist
        return relative_loss(model.decode(posterior.sample()).sample, batch)

    recipe = Recipe(f"{folder.parent.name}-vae-decoder", steps, LEARNING_RATE, 1e-4)
    fit(recipe, model, loss, state)
    checkpoints.save_part(model, folder)


def train(
    output: Path, model: AutoencoderKL, steps: int, images: torch.Tensor, state: Path
) -> None:
    """Train an untrained ``model`` and save it to ``output`` in the diffusers layout, fp16.

    The last quarter of the steps runs in float32, the rest in bfloat16.
    """

    def loss(done: float) -> tuple[torch.Tensor, float]:
        return _loss(model, images[torch.randint(len(images), (BATCH,))], half=done < 0.75)

    fit(Recipe(f"{output.parent.name}-vae", steps, LEARNING_RATE, 1e-4), model.train(), loss, state)
    with torch.no_grad():
        normalize(model.eval(), images[::13])
    model.half().save_pretrained(output)
