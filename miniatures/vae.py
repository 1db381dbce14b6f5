"""Trains the miniatures' autoencoder on drawn scenes."""

import logging
import random
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn.functional import l1_loss, mse_loss

from miniatures.captions import TRAINING
from miniatures.scenes import SIDE, draw

log = logging.getLogger(__name__)

PICTURES_PER_SCENE = 12
BATCH = 32
LEARNING_RATE = 2e-3
KL_WEIGHT = 1e-4
EDGE_WEIGHT = 0.5


def pictures(per_scene: int, seed: int) -> torch.Tensor:
    """Drawn training scenes, float32 in [-1, 1], shape (648 * per_scene, 3, 64, 64)."""
    rng = random.Random(seed)
    drawn = np.stack([draw(scene, rng) for scene in TRAINING for _ in range(per_scene)])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def autoencoder(latent_channels: int) -> AutoencoderKL:
    """An untrained AutoencoderKL of 0.85 million parameters that halves the sides three times."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 48, 64),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=8,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        force_upcast=False,
        sample_size=SIDE,
    )


def _edges(picture: torch.Tensor) -> torch.Tensor:
    """Differences between horizontal and between vertical neighbours, flattened together."""
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


def _latent_statistics(model: AutoencoderKL, images: torch.Tensor) -> tuple[float, float]:
    """Mean and standard deviation over the latents of ``images``."""
    with torch.no_grad():
        latents = torch.cat([model.encode(b).latent_dist.mean for b in images.split(256)])
    return latents.mean().item(), latents.std().item()


def train(output: Path, latent_channels: int, steps: int, seed: int = 0) -> None:
    """Train from nothing and save to ``output`` in the diffusers layout, fp16.

    The last quarter of the steps runs in float32, the rest in bfloat16. The saved config's
    scaling and shift factors give the latents of the training pictures zero mean, unit variance.
    """
    torch.manual_seed(seed)
    model = autoencoder(latent_channels).train()
    images = pictures(PICTURES_PER_SCENE, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1
    )
    average = 0.0
    for step in range(steps):
        batch = images[torch.randint(len(images), (BATCH,))]
        loss, squared = _loss(model, batch, half=step < steps * 3 // 4)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average = squared if step == 0 else 0.98 * average + 0.02 * squared
        if step % 100 == 0 or step == steps - 1:
            log.info("vae step %d of %d: squared error %.5f", step, steps, average)
    model.eval()
    mean, deviation = _latent_statistics(model, images[::13])
    model.register_to_config(shift_factor=mean, scaling_factor=1 / deviation)
    model.half().save_pretrained(output)
