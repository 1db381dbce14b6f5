"""Image conditioning of the denoiser, against the steps of EasyAnimateInpaintPipeline."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers.pipelines.easyanimate.pipeline_easyanimate_inpaint import (
    add_noise_to_reference_video,
    get_image_to_video_latent,
    resize_mask,
)
from PIL import Image

from stepwise.families.easyanimate import EASYANIMATE_I2V
from stepwise.request.resolve import resolve
from stepwise.video.image_conditioning import inpaint_latents
from tests.unit.serving.request.test_settings import MANIFEST, inputs
from tests.unit.serving.video.test_sliced_vae import SCALING, autoencoder, layout, runner

NOISE = 0.0563
CEILING = 2e-5


def image(seed):
    """An image with a black area, which gets no noise."""
    drawn = np.random.default_rng(seed).integers(0, 256, (48, 32, 3), np.uint8)
    drawn[:8] = 0
    return drawn


def due(start, end, frames, seed, noise):
    """The pipeline's steps from images to ``inpaint_latents``."""
    images = [Image.fromarray(start)], end if end is None else [Image.fromarray(end)]
    video, mask = get_image_to_video_latent(*images, frames, (48, 32))
    known = mask < 128
    masked = (2 * video - 1) * known - 1.0 * ~known
    generator = torch.Generator().manual_seed(seed)
    torch.randn(1, 16, (frames - 1) // 4 + 1, 6, 4, generator=generator)
    if noise:
        masked = add_noise_to_reference_video(masked, ratio=noise, generator=generator)
    with torch.no_grad():
        latents = SCALING * autoencoder().encode(masked.float()).latent_dist.mode()
    resized = resize_mask(known.float(), latents, True) * SCALING
    return torch.cat([resized, latents], dim=1)[0].numpy()


@pytest.mark.parametrize("noise", [0.0, NOISE])
@pytest.mark.parametrize(("frames", "ends"), [(1, False), (5, False), (17, False), (9, True)])
def test_image_conditioning_matches_diffusers(frames, ends, noise):
    start, end = image(0), image(1) if ends else None
    video = layout(reference_noise=noise)
    manifest = replace(MANIFEST, video=video)
    asked = {**inputs(frames=frames, seed=7), "start_image": start}
    settings = resolve(asked, EASYANIMATE_I2V, manifest, {}, arrived=0.0)
    got = inpaint_latents(runner("encoder"), start, end, settings, video)
    expected = due(start, end, frames, 7, noise)
    difference = np.abs(got - expected).max()
    print(f"{frames} frames: {difference:.1e}, at most {CEILING:.0e}")
    assert got.shape == expected.shape
    assert difference <= CEILING
