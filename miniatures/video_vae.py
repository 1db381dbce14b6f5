"""Trains the EasyAnimate miniature's autoencoder on drawn videos.

It starts from the SD3 miniature's autoencoder, inflated: of the three frames that a convolution
sees, only the last gets weights. So it can already code every fourth frame as a picture, and
learns motion.
"""

import random
import re
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderKLMagvit
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import nn

from miniatures import checkpoints
from miniatures.training import Recipe, device, fit
from miniatures.vae import KL_WEIGHT, relative_loss
from miniatures.videos import FRAMES, TRAINING, draw
from stepwise.export.modules.magvit import streamed

AUTOENCODER = {
    "block_out_channels": (16, 32, 48, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    # Read by the InP pipeline of diffusers, and True in all published configs.
    "cache_mag_vae": True,
}
VIDEOS_PER_CAPTION = 6
# Both halves learn from short clips of a video, then the decoder from whole videos.
BATCH, SHORT_FRAMES, WHOLE_BATCH = 8, 9, 32
BOTH = Recipe("easyanimate-vae", 400, 4e-4, 1e-4)
DECODER = Recipe("easyanimate-vae-decoder", 3000, 3e-4, 1e-4)
# Standard deviation of noise on latents of unit variance while the decoder is trained alone: a
# denoiser's latents never quite match those of a drawn video.
NOISE = 0.1
# The background's brightness would have two thirds of the latents' variance. This limits each
# direction's variance, as a multiple of the mean over all directions.
MOST_VARIANCE = 2.0
# Names of an AutoencoderKL's parts, and their names in an AutoencoderKLMagvit.
_NAMES = (
    (r"\.resnets\.", ".convs."),
    (r"\.conv_shortcut\.", ".shortcut."),
    (r"\.(down|up)samplers\.0\.", r".\1sampler."),
)


def videos(per_caption: int, seed: int) -> torch.Tensor:
    """Drawn training videos, uint8, shape (259 * per_caption, 3, 17, 48, 48)."""
    rng = random.Random(seed)
    drawn = np.stack([draw(video, rng) for video in TRAINING for _ in range(per_caption)])
    return torch.as_tensor(drawn).permute(0, 4, 1, 2, 3)


def levels(drawn: torch.Tensor) -> torch.Tensor:
    """The float32 levels in [-1, 1] of uint8 videos."""
    return drawn.float().div_(127.5).sub_(1)


def _anywhere(drawn: torch.Tensor) -> torch.Tensor:
    """Nine consecutive frames at a random place in random videos."""
    first = int(torch.randint(FRAMES - SHORT_FRAMES + 1, ()))
    chosen = drawn[torch.randint(len(drawn), (BATCH,))]
    return levels(chosen[:, :, first : first + SHORT_FRAMES])


def _posterior(model: AutoencoderKLMagvit, batch: torch.Tensor) -> DiagonalGaussianDistribution:
    return DiagonalGaussianDistribution(model.quant_conv(model.encoder(batch)))


@torch.no_grad()
def encode_levels(model: AutoencoderKLMagvit, batch: torch.Tensor) -> torch.Tensor:
    """The denoiser's latents (N, 16, 5, 6, 6) of whole videos (N, 3, 17, 48, 48) in [-1, 1].

    ``model`` must be streamed.
    """
    means: torch.Tensor = _posterior(model, batch).mean
    return means * model.config.scaling_factor


def encode(model: AutoencoderKLMagvit, drawn: torch.Tensor) -> torch.Tensor:
    """As ``encode_levels``, for uint8 videos."""
    return torch.cat([encode_levels(model, levels(part)) for part in drawn.split(32)])


@torch.no_grad()
def _normalize(model: AutoencoderKLMagvit, drawn: torch.Tensor) -> None:
    """Give latents zero mean, less of their main direction, and unit variance over all channels.

    Changes the 1 x 1 convolutions on both sides of the latents, and the scaling factor.
    """
    before, after = model.quant_conv, model.post_quant_conv
    latents = encode(model, drawn).transpose(0, 1).flatten(1) / model.config.scaling_factor
    mean, count = latents.mean(1), len(latents)
    variances, directions = torch.linalg.eigh(torch.cov(latents))
    kept = (MOST_VARIANCE * variances.mean() / variances).clamp(max=1).sqrt()
    matrix = directions * kept @ directions.T
    rows = matrix @ before.weight[:count].flatten(1)
    before.weight[:count] = rows.view_as(before.weight[:count])
    before.bias[:count] = matrix @ (before.bias[:count] - mean)
    after.bias += after.weight.flatten(1) @ mean
    after.weight = nn.Parameter(
        (after.weight.flatten(1) @ torch.linalg.inv(matrix)).view_as(after.weight)
    )
    model.register_to_config(scaling_factor=1 / (variances * kept**2).mean().sqrt().item())


def inflate(image: AutoencoderKL, video: AutoencoderKLMagvit) -> None:
    """Copy the weights of ``image`` into ``video``, at the last frame of each convolution.

    ``video`` has no counterpart of the second residual block in the middle of ``image``.
    """
    given = video.state_dict()
    for name, value in image.state_dict().items():
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        if name not in given:
            continue
        if value.dim() == 4:
            given[name].zero_()
            given[name][:, :, -1] = value
        else:
            given[name].copy_(value)
    for conv in (video.quant_conv, video.post_quant_conv):
        torch.nn.init.eye_(conv.weight.data.flatten(1))
        torch.nn.init.zeros_(conv.bias.data)


def train(folder: Path, image: Path, state: Path, seed: int = 0) -> None:
    """Train the autoencoder and save it to ``folder`` in the diffusers layout, fp16.

    ``image`` is the folder of the autoencoder to inflate.
    """
    model = AutoencoderKLMagvit.from_config(AUTOENCODER)
    inflate(AutoencoderKL.from_pretrained(image, torch_dtype=torch.float32), model)
    streamed(model)
    model.to(device())
    drawn = videos(VIDEOS_PER_CAPTION, seed)

    def loss(_: float) -> tuple[torch.Tensor, float]:
        batch = _anywhere(drawn)
        posterior = _posterior(model, batch)
        decoded = model.decoder(model.post_quant_conv(posterior.sample()))
        error, shown = relative_loss(decoded, batch)
        return error + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel(), shown

    fit(BOTH, model, loss, state)
    _normalize(model.eval(), drawn[::7])
    checkpoints.save_part(model, folder)


def sharpen(folder: Path, state: Path, seed: int = 0) -> None:
    """Continue training the decoder of the autoencoder in ``folder``; its latents do not change.

    Saves the moving average.
    """
    model = AutoencoderKLMagvit.from_pretrained(folder, torch_dtype=torch.float32)
    streamed(model)
    model.to(device())
    model.encoder.requires_grad_(False)
    model.quant_conv.requires_grad_(False)
    drawn = videos(VIDEOS_PER_CAPTION, seed)
    latents, scale = encode(model, drawn), model.config.scaling_factor

    def loss(_: float) -> tuple[torch.Tensor, float]:
        chosen = torch.randint(len(drawn), (WHOLE_BATCH,))
        given = latents[chosen] + NOISE * torch.randn_like(latents[chosen])
        decoded = model.decoder(model.post_quant_conv(given / scale))
        return relative_loss(decoded, levels(drawn[chosen]))

    checkpoints.save_part(fit(DECODER, model, loss, state), folder)
