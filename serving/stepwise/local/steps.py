"""The steps of a request, independent of the runtime: torch, ONNX Runtime or a server."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from stepwise.batching.request import Float32, Picture
from stepwise.batching.stacking import advance, guide, stack_conditioning, stack_latents
from stepwise.description.family import Family
from stepwise.description.fields import Array
from stepwise.description.manifest import VideoLayout
from stepwise.description.spec import Component, ensemble_name
from stepwise.sampling.samplers import X
from stepwise.video import sliced_vae

# Maps a component's inputs by name to its outputs by name.
Run = Callable[[Mapping[str, Any]], Mapping[str, Any]]
# Runs any component of a pipeline.
RunComponent = Callable[[Component, Mapping[str, Any]], Mapping[str, Any]]
# Maps a denoiser's inputs by name to its prediction, (rows, *latent shape).
Predict = Callable[[Mapping[str, Array]], Float32]

# The first two inputs of every denoiser.
LATENTS, TIMESTEP = "latents", "timestep"


def encode_prompt(
    encoder: Component, role: str, prepared: Mapping[str, Array], run: Run
) -> dict[str, Array]:
    """One text encoder's embeddings of one prompt, by ``ensemble_name``.

    ``prepared`` is the output of ``Preparer``: the inputs of all encoders by ``ensemble_name``.
    """
    names = {tensor.name: ensemble_name(role, encoder, tensor) for tensor in encoder.inputs}
    outputs = run({name: prepared[names[name]] for name in names})
    return {
        ensemble_name(role, encoder, tensor): outputs[tensor.name] for tensor in encoder.outputs
    }


def encode_prompts(
    family: Family, prepared: Mapping[str, Array], run: RunComponent
) -> dict[str, Array]:
    """The embeddings of both prompts from all text encoders, by ``ensemble_name``."""
    embeddings: dict[str, Array] = {}
    for role, encoder in family.encodings():
        embeddings |= encode_prompt(encoder, role, prepared, bound(run, encoder))
    return embeddings


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
        advance(pictures, guide(pictures, predict(feed)))
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


def bound(run: RunComponent, component: Component) -> Run:
    """Bind ``run`` to one component."""
    return lambda feed: run(component, feed)
