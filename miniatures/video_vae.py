"""Trains the autoencoder of EasyAnimate's miniature on drawn clips.

It begins as that of SD3's miniature, inflated: of the three frames that a convolution sees, only
the last counts. So it knows pictures, of which every fourth frame is one, and learns what moves.
"""

import random
import re
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderKLMagvit
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from export.magvit import streamed
from miniatures import checkpoints
from miniatures.clips import FRAMES, TRAINING, draw
from miniatures.training import Recipe, fit
from miniatures.vae import KL_WEIGHT, relative_loss

AUTOENCODER = {
    "block_out_channels": (16, 32, 48, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    # What the InP pipeline of diffusers asks the config for, and all published ones say.
    "cache_mag_vae": True,
}
CLIPS_PER_CAPTION = 6
# The encoder learns from short clips anywhere in one, the decoder from the beginnings of clips and
# from whole ones in turn, which cost the same.
BATCH, SHORT_FRAMES, WHOLE_BATCH = 8, 9, 4
WHOLE = Recipe("easyanimate-vae", 400, 4e-4, 1e-4)
DECODER = Recipe("easyanimate-vae-decoder", 1200, 5e-4, 1e-4)
# What the parts of an AutoencoderKL are called in an AutoencoderKLMagvit.
_NAMES = (
    (r"\.resnets\.", ".convs."),
    (r"\.conv_shortcut\.", ".shortcut."),
    (r"\.(down|up)samplers\.0\.", r".\1sampler."),
)


def clips(per_caption: int, seed: int) -> torch.Tensor:
    """Drawn training clips, uint8, shape (259 * per_caption, 3, 17, 48, 48)."""
    rng = random.Random(seed)
    drawn = np.stack([draw(clip, rng) for clip in TRAINING for _ in range(per_caption)])
    return torch.from_numpy(drawn).permute(0, 4, 1, 2, 3)


def levels(drawn: torch.Tensor) -> torch.Tensor:
    """The float32 levels in [-1, 1] of uint8 clips."""
    return drawn.float().div_(127.5).sub_(1)


def _anywhere(drawn: torch.Tensor) -> torch.Tensor:
    """Nine frames from anywhere in random clips."""
    first = int(torch.randint(FRAMES - SHORT_FRAMES + 1, ()))
    chosen = drawn[torch.randint(len(drawn), (BATCH,))]
    return levels(chosen[:, :, first : first + SHORT_FRAMES])


def _from_the_beginning(drawn: torch.Tensor) -> torch.Tensor:
    """The first nine frames of random clips, or half as many whole ones."""
    short = torch.rand(()) < 0.5
    count, frames = (BATCH, SHORT_FRAMES) if short else (WHOLE_BATCH, FRAMES)
    return levels(drawn[torch.randint(len(drawn), (count,)), :, :frames])


def _posterior(model: AutoencoderKLMagvit, batch: torch.Tensor) -> DiagonalGaussianDistribution:
    return DiagonalGaussianDistribution(model.quant_conv(model.encoder(batch)))


@torch.no_grad()
def encode_levels(model: AutoencoderKLMagvit, batch: torch.Tensor) -> torch.Tensor:
    """The latents of whole clips (N, 3, 17, 48, 48) in [-1, 1] as a denoiser sees them.

    (N, 16, 5, 6, 6); ``model`` is streamed.
    """
    means: torch.Tensor = _posterior(model, batch).mean
    return means * model.config.scaling_factor


def encode(model: AutoencoderKLMagvit, drawn: torch.Tensor) -> torch.Tensor:
    """The same of uint8 clips."""
    return torch.cat([encode_levels(model, levels(part)) for part in drawn.split(32)])


def _normalize(model: AutoencoderKLMagvit, drawn: torch.Tensor) -> None:
    """Give latents zero mean, in the convolutions beside them, and unit variance."""
    latents = encode(model, drawn) / model.config.scaling_factor
    mean = latents.mean(dim=(0, 2, 3, 4))
    with torch.no_grad():
        model.quant_conv.bias[: len(mean)] -= mean
        model.post_quant_conv.bias += model.post_quant_conv.weight.flatten(1) @ mean
    latents -= mean.view(-1, 1, 1, 1)
    model.register_to_config(scaling_factor=1 / latents.std().item())


def inflate(image: AutoencoderKL, video: AutoencoderKLMagvit) -> None:
    """Give ``video`` the weights of ``image``, which go to the last frame that each sees.

    The second residual block in the middle of ``image`` has no place in it.
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

    ``image`` is the folder of the one that it is inflated from.
    """
    model = AutoencoderKLMagvit.from_config(AUTOENCODER)
    inflate(AutoencoderKL.from_pretrained(image, torch_dtype=torch.float32), model)
    streamed(model)
    drawn = clips(CLIPS_PER_CAPTION, seed)

    def loss(_: float) -> tuple[torch.Tensor, float]:
        batch = _anywhere(drawn)
        posterior = _posterior(model, batch)
        decoded = model.decoder(model.post_quant_conv(posterior.sample()))
        error, shown = relative_loss(decoded, batch)
        return error + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel(), shown

    fit(WHOLE, model, loss, state)
    _normalize(model.eval(), drawn[::7])
    checkpoints.save_part(model, folder)


def sharpen(folder: Path, state: Path, seed: int = 0) -> None:
    """Train the decoder of the autoencoder in ``folder`` on; its latents stay what they are."""
    model = AutoencoderKLMagvit.from_pretrained(folder, torch_dtype=torch.float32)
    streamed(model)
    model.encoder.requires_grad_(False)
    model.quant_conv.requires_grad_(False)
    drawn = clips(CLIPS_PER_CAPTION, seed)

    def loss(_: float) -> tuple[torch.Tensor, float]:
        batch = _from_the_beginning(drawn)
        with torch.no_grad():
            latents = _posterior(model, batch).sample()
        return relative_loss(model.decoder(model.post_quant_conv(latents)), batch)

    fit(DECODER, model, loss, state)
    checkpoints.save_part(model, folder)
