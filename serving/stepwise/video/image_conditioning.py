"""The conditioning of EasyAnimate's InP transformer on the images that a video continues.

Follows EasyAnimateInpaintPipeline in diffusers with ``get_image_to_video_latent``: the latents of a
video that is blank except for its first frame, and its last one if there is an end image, with a
mask of the known frames.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from stepwise.description.fields import Array
from stepwise.description.manifest import VideoLayout
from stepwise.description.settings import Settings
from stepwise.sampling.noise import Generator
from stepwise.video import sliced_vae
from stepwise.video.sliced_vae import Float32, Run

_BLANK = -1.0


def inpaint_latents(
    run: Run, start: Array, end: Array | None, settings: Settings, layout: VideoLayout
) -> Float32:
    """Mask and latents, float32 (1 + channels, frames, height, width), for one video.

    ``run`` is the encoder. The images are uint8 (height, width, 3) in the video's size. The mask is
    ``scaling_factor`` at the first frame and 0 elsewhere, because diffusers scales it like latents.
    It leaves out an end image, because diffusers samples the mask between frames.
    """
    images = {0: start} if end is None else {0: start, settings.frames - 1: end}
    known = _noisy({index: _levels(image) for index, image in images.items()}, settings, layout)
    latents = sliced_vae.encode(run, _slices(known, settings, layout), layout)
    mask = np.zeros_like(latents[:1])
    mask[:, 0] = layout.scaling_factor
    return np.concatenate([mask, latents])


def _levels(image: Array) -> Float32:
    """An image as levels (3, height, width) in [-1, 1]."""
    levels: Float32 = 2 * (image.astype(np.float32) / np.float32(255)) - 1
    return levels.transpose(2, 0, 1)


def _noisy(
    known: Mapping[int, Float32], settings: Settings, layout: VideoLayout
) -> dict[int, Float32]:
    """Add the noise that the model was trained with to the known frames, except at black pixels.

    The noise is drawn after the initial noise, by colour channel and then by frame.
    """
    if not layout.reference_noise:
        return dict(known)
    generator = Generator(settings.seed)
    generator.skip((1, *settings.latent_shape))
    sides = (settings.height, settings.width)
    noisy = {index: levels.copy() for index, levels in known.items()}
    for channel in range(3):
        for index in range(settings.frames):
            if index not in noisy:
                generator.skip(sides)
                continue
            noise = np.float32(layout.reference_noise) * generator.normal(sides)
            levels = noisy[index][channel]
            noisy[index][channel] = levels + np.where(levels == _BLANK, 0, noise)
    return noisy


def _slices(
    known: Mapping[int, Float32], settings: Settings, layout: VideoLayout
) -> Iterator[Float32]:
    """Slices (3, frames, height, width): one frame, then ``layout.frames`` frames each."""
    shape = (3, settings.height, settings.width)
    blank = np.full(shape, _BLANK, np.float32)
    for first in (0, *range(1, settings.frames, layout.frames)):
        count = layout.frames if first else 1
        frames = [known.get(index, blank) for index in range(first, first + count)]
        yield np.stack(frames, axis=1)
