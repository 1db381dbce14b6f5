"""The steps of a request, independent of the runtime: torch, ONNX Runtime or a server."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from stepwise.batching.request import Float32, Picture
from stepwise.batching.stacking import advance, guide, stack_conditioning, stack_latents
from stepwise.description.fields import Array
from stepwise.description.manifest import VideoLayout
from stepwise.description.spec import Component
from stepwise.encoding.prompts import Run
from stepwise.sampling.samplers import X
from stepwise.video import sliced_vae

# Maps a denoiser's inputs by name to its prediction, (rows, *latent shape).
Predict = Callable[[Mapping[str, Array]], Float32]

# The first two inputs of every denoiser.
LATENTS, TIMESTEP = "latents", "timestep"


def denoise(pictures: Sequence[Picture], predict: Predict) -> Float32:
    """Denoise pictures in one batch and return their latents (pictures, *latent shape).

    All pictures must have the same number of steps and the same shapes.
    """
    for picture in pictures:
        picture.start(0.0)
    conditioning = stack_conditioning(pictures)
    while not pictures[0].finished:
        latents, timesteps = stack_latents(pictures)
        feed = {LATENTS: latents, TIMESTEP: timesteps, **conditioning}
        for picture, guided in zip(pictures, guide(pictures, predict(feed)), strict=True):
            advance(picture, guided, len(pictures))
    return np.stack([picture.state[X] for picture in pictures])


def decode(decoder: Component, latents: Float32, layout: VideoLayout | None, run: Run) -> Array:
    """Decode latents (*latent shape) to a picture, uint8 (height, width, 3), or, given a
    ``layout``, to the frames of a video, uint8 (frames, height, width, 3).
    """
    if layout is None:
        pictures = run({decoder.inputs[0].name: latents[None]})[decoder.outputs[0].name]
        picture: Array = pictures[0]
        return picture
    return np.concatenate([frames for _, frames in sliced_vae.decode(run, latents, layout)])
