"""Trains the image-to-video miniature: continues EasyAnimate's, with given frames as input."""

import shutil
from pathlib import Path

import torch
from torch import nn

from miniatures import video_vae
from miniatures.easyanimate import (
    BATCH,
    LATENT_CHANNELS,
    Dataset,
    EasyAnimate,
    autoencoder,
    make_dataset,
    noisy,
    save,
)
from miniatures.training import Recipe, device, fit
from miniatures.videos import FRAMES

RECIPE = Recipe("easyanimate-i2v", 2800, 6e-4)
VIDEOS_PER_CAPTION = 8
# EasyAnimateInpaintPipeline's noise_aug_strength.
REFERENCE_NOISE = 0.0563
ENDS, SIGMA_MEAN = 0.25, 0.7
_PATCH = "transformer.proj.weight"


def _begin(model: EasyAnimate, trained: EasyAnimate) -> None:
    """Copy the weights of ``trained`` into ``model``; its additional input channels get zeros."""
    weights = trained.state_dict()
    widened = torch.zeros_like(model.state_dict()[_PATCH])
    widened[:, :LATENT_CHANNELS] = weights[_PATCH]
    model.load_state_dict({**weights, _PATCH: widened})


@torch.no_grad()
def _inpaint(vae: nn.Module, drawn: torch.Tensor, known: tuple[int, ...]) -> torch.Tensor:
    """The transformer's input for ``known`` frames of uint8 videos (N, 3, 17, 48, 48).

    A mask, equal to the latents' scale at the first frame and 0 elsewhere, and the latents of the
    videos with all unknown frames blank.
    """
    encoded = []
    for part in drawn.split(32):
        levels = torch.full((len(part), 3, FRAMES, *part.shape[3:]), -1.0)
        for index in known:
            frame = video_vae.levels(part[:, :, index])
            noise = REFERENCE_NOISE * torch.randn_like(frame)
            levels[:, :, index] = frame + torch.where(frame == -1, 0, noise)
        encoded.append(video_vae.encode_levels(vae, levels))
    latents = torch.cat(encoded)
    mask = torch.zeros_like(latents[:, :1])
    mask[:, :, 0] = vae.config.scaling_factor
    return torch.cat([mask, latents], dim=1)


def _loss(
    model: EasyAnimate, dataset: Dataset, starts: torch.Tensor, ends: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """Mean squared error of the velocity on one batch; some videos also get their last frame."""
    latents, tokens, chosen = dataset.batch(BATCH)
    given, sigmas, velocity = noisy(latents, SIGMA_MEAN)
    with_end = (torch.rand(BATCH) < ENDS).view(-1, 1, 1, 1, 1)
    inpaint = torch.where(with_end, ends[chosen], starts[chosen])
    error = nn.functional.mse_loss(model(given, sigmas, tokens, inpaint), velocity)
    return error, error.item()


def train(output: Path, state: Path, seed: int = 0) -> None:
    """Continue from ``easyanimate`` next to ``output``; save the moving average."""
    torch.manual_seed(seed)
    base = output.parent / "easyanimate"
    shutil.copytree(base / "vae", output / "vae", dirs_exist_ok=True)
    trained, model = EasyAnimate(), EasyAnimate(2 * LATENT_CHANNELS + 1)
    trained.text_encoder = type(trained.text_encoder).from_pretrained(base / "text_encoder")
    trained.transformer = type(trained.transformer).from_pretrained(
        base / "transformer", torch_dtype=torch.float32
    )
    _begin(model, trained)
    with device():
        vae, drawn = autoencoder(output / "vae"), video_vae.videos(VIDEOS_PER_CAPTION, seed + 2)
        dataset = make_dataset(model, drawn, vae)
        starts, ends = (_inpaint(vae, drawn, known) for known in ((0,), (0, FRAMES - 1)))
        model.to(device())
        average = fit(RECIPE, model, lambda _: _loss(model, dataset, starts, ends), state)
    save(average, output, "EasyAnimateInpaintPipeline")
