"""Draws pictures with torch, one component in memory at a time, before anything is written."""

import gc
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from export.checkpoint import SCHEDULER, Checkpoint
from export.errors import CheckpointError, reason
from export.exportable import Exportable
from export.loading import load
from export.shapes import LARGEST_SIDE
from export.target import describe
from export.tokenizer import chat_templates, write_tokenizers
from pipelines.conditioning import slots
from pipelines.inflight.batch import advance, guide, stack_conditioning, stack_latents
from pipelines.inflight.request import Picture, Request, table
from pipelines.manifest import TOKENIZERS
from pipelines.prepare import Preparer
from pipelines.samplers import X
from pipelines.settings import Settings
from pipelines.spec import Component, ensemble_name

Array = npt.NDArray[Any]
Feed = Mapping[str, Array]
# The inputs of every call, by component.
Feeds = Mapping[str, Sequence[Feed]]


@dataclass(frozen=True)
class Drawing:
    """Pictures to draw: a prompt each, all against an empty negative prompt.

    They have the checkpoint's native side, or ``largest_side`` pixels if that is less.
    """

    prompts: tuple[str, ...]
    steps: int
    guidance_scale: float
    largest_side: int = LARGEST_SIDE

    def requests(self) -> Iterator[dict[str, Array]]:
        """What a client would send for each picture; seeds count up."""
        for seed, prompt in enumerate(self.prompts):
            yield {
                "prompt": np.asarray([prompt.encode()], np.object_),
                "negative_prompt": np.asarray([b""], np.object_),
                "steps": np.asarray([self.steps], np.int32),
                "guidance_scale": np.asarray([self.guidance_scale], np.float32),
                "seed": np.asarray([seed], np.int64),
            }


# Enough to see that a checkpoint is whole.
ONCE = Drawing(("a large red star",), steps=1, guidance_scale=1.0)
# Plain, crowded, dark and meaningless: what float16 must hold is learned from these.
VARIED = Drawing(
    (
        "a large red star in the top left on a white background",
        "a crowded market at noon, every stall full of fruit, photograph, sharp focus, 35 mm",
        "a small white circle in the center on a black background",
        "?",
    ),
    steps=4,
    guidance_scale=3.0,
)


def rehearse(checkpoint: Checkpoint, drawing: Drawing = ONCE) -> Feeds:
    """Load every part of a checkpoint, one after the other, and see that they fit together.

    Returns what each component was given. Raises CheckpointError, naming the part, for one that
    cannot be loaded, does not run on what the others give, or gives anything but finite numbers.
    """
    run = _Runner(checkpoint)
    pictures = [Picture(request, 0) for request in _requests(run, drawing)]
    _denoise(run, pictures)
    _decode(run, pictures)
    return dict(run.feeds)


def encode(checkpoint: Checkpoint, drawing: Drawing) -> list[Request]:
    """What each picture asks of the denoiser, its prompts encoded; CheckpointError as above."""
    return _requests(_Runner(checkpoint), drawing)


def _requests(run: "_Runner", drawing: Drawing) -> list[Request]:
    prepared = list(_prepare(run.checkpoint, drawing))
    embeddings = _encode(run, [fed for fed, _ in prepared])
    settings = [settings for _, settings in prepared]
    pairs = zip(embeddings, settings, strict=True)
    return [_request(run.checkpoint, *pair) for pair in pairs]


def _prepare(
    checkpoint: Checkpoint, drawing: Drawing
) -> Iterator[tuple[dict[str, Array], Settings]]:
    """Encoder inputs and settings of each picture, as ``<name>_prepare`` will make them."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tokens = write_tokenizers(checkpoint, folder / TOKENIZERS)
        templates = chat_templates(checkpoint)
        describe(checkpoint, checkpoint.pipeline.family, tokens, templates).write(folder)
        with _explained(f"{checkpoint.folder}: its tokenizers cannot be used"):
            preparer = Preparer(checkpoint.pipeline, folder)
            for request in drawing.requests():
                fed, settings = preparer(request, time.monotonic())
                side = min(checkpoint.sides.native, drawing.largest_side) // checkpoint.vae_scale
                shape = (settings.latent_shape[0], side, side)
                yield fed, replace(settings, latent_shape=shape)


class _Runner:
    """Runs components and keeps what they are given; one of them is in memory at a time."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.feeds: defaultdict[str, list[Feed]] = defaultdict(list)

    @contextmanager
    def loaded(self, component: Component) -> Iterator[Exportable]:
        module = load(self.checkpoint, component)
        try:
            yield module
        finally:
            del module
            gc.collect()

    def __call__(self, module: Exportable, component: Component, feed: Feed) -> list[Array]:
        """A component's outputs in the spec's order."""
        self.feeds[component.name].append(feed)
        place = self.checkpoint.place(component)
        with _explained(f"{place} loads but does not run"), torch.inference_mode():
            outputs = module(*map(torch.from_numpy, feed.values()))
            arrays = [o.numpy() for o in (outputs if len(component.outputs) > 1 else [outputs])]
        if not all(np.isfinite(array).all() for array in arrays):
            raise CheckpointError(
                f"{place} gives values that are no finite numbers: its weights are damaged; "
                "download it again"
            )
        return arrays


def _encode(run: _Runner, prepared: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    """The embeddings of each picture by the name that they have between the models."""
    pipeline = run.checkpoint.pipeline
    embeddings: list[dict[str, Array]] = [{} for _ in prepared]
    for encoder in pipeline.encoders:
        roles = [role for role, other in pipeline.encodings() if other is encoder]
        with run.loaded(encoder) as module:
            for role in roles:
                for fed, found in zip(prepared, embeddings, strict=True):
                    names = {t.name: ensemble_name(role, encoder, t) for t in encoder.inputs}
                    outputs = run(module, encoder, {n: fed[names[n]] for n in names})
                    for tensor, value in zip(encoder.outputs, outputs, strict=True):
                        found[ensemble_name(role, encoder, tensor)] = value
    return embeddings


def _request(
    checkpoint: Checkpoint, embeddings: Mapping[str, Array], settings: Settings
) -> Request:
    shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in embeddings.items())
    with _explained(f"{checkpoint.origin}: its text encoders do not go together ({shapes})"):
        rows = slots(checkpoint.pipeline, embeddings, settings)
    with _explained(f"{checkpoint.folder / SCHEDULER} cannot be served"):
        steps = table(settings)
    return Request("", settings, rows, steps, send=_nobody, fail=_nobody)


def _denoise(run: _Runner, pictures: Sequence[Picture]) -> None:
    denoiser = run.checkpoint.pipeline.denoiser
    place = run.checkpoint.place(denoiser)
    with run.loaded(denoiser) as module:
        for picture in pictures:
            picture.start(time.monotonic())
            conditioning = stack_conditioning([picture])
            while not picture.finished:
                inputs = dict(zip(("latents", "timestep"), stack_latents([picture]), strict=True))
                (prediction,) = run(module, denoiser, {**inputs, **conditioning})
                with _explained(f"{place} gives {list(prediction.shape)} for latents"):
                    advance([picture], guide([picture], prediction))


def _decode(run: _Runner, pictures: Sequence[Picture]) -> None:
    decoder, scale = run.checkpoint.pipeline.decoder, run.checkpoint.vae_scale
    with run.loaded(decoder) as module:
        for picture in pictures:
            latents = picture.state[X][None]
            (image,) = run(module, decoder, {decoder.inputs[0].name: latents})
            _check_picture(run.checkpoint, image, latents.shape[-1] * scale)


def _check_picture(checkpoint: Checkpoint, picture: Array, side: int) -> None:
    if picture.shape != (1, side, side, 3):
        raise CheckpointError(
            f"{checkpoint.place(checkpoint.pipeline.decoder)} makes pictures of shape "
            f"{list(picture.shape[1:])} where {[side, side, 3]} is due; download the checkpoint "
            "again"
        )


def _nobody(*_answer: object) -> None:
    """Takes answers that nobody waits for."""


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn whatever the libraries raise for a damaged checkpoint into one sentence."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{what}: {reason(error)}; download the checkpoint again") from error
