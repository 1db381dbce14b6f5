"""Draws pictures with torch, one component in memory at a time, before anything is written."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from stepwise.batching.request import Float32, Picture, Request, table
from stepwise.description.family import ROLES
from stepwise.description.manifest import TOKENIZERS
from stepwise.description.settings import Settings
from stepwise.description.spec import INPAINT_LATENTS
from stepwise.encoding.prompts import encode_prompt
from stepwise.export.checkpoint.folder import SCHEDULER, Checkpoint
from stepwise.export.checkpoint.tokenizer import chat_templates, write_tokenizers
from stepwise.export.errors import CheckpointError
from stepwise.export.onnx.ort import Array, Feed, Feeds
from stepwise.export.onnx.shapes import LARGEST_SIDE
from stepwise.export.preflight.torch_runner import Runner, explained
from stepwise.export.repository.layout import describe
from stepwise.local.steps import LATENTS, decode, denoise
from stepwise.request.prepare import Preparer
from stepwise.sampling.samplers import X
from stepwise.video.image_conditioning import inpaint_latents

# In pixels, for videos: the caches between slices grow with the frames, and all inputs of all
# components are in memory at once.
LARGEST_VIDEO_SIDE = 128
# The input for the image that a video continues.
START = "start_image"


@dataclass(frozen=True)
class Drawing:
    """Pictures to draw, one per prompt, all with an empty negative prompt.

    They have the checkpoint's native side, at most ``largest_side`` pixels. Videos are drawn up to
    their second slice.
    """

    prompts: tuple[str, ...]
    steps: int
    guidance_scale: float
    largest_side: int = LARGEST_SIDE

    def requests(self) -> Iterator[dict[str, Array]]:
        """The request that a client would send for each picture; seeds count up from 0."""
        for seed, prompt in enumerate(self.prompts):
            yield {
                "prompt": np.asarray([prompt.encode()], np.object_),
                "negative_prompt": np.asarray([b""], np.object_),
                "steps": np.asarray([self.steps], np.int32),
                "guidance_scale": np.asarray([self.guidance_scale], np.float32),
                "seed": np.asarray([seed], np.int64),
            }


# Enough to check that a checkpoint is complete.
ONCE = Drawing(("a large red star",), steps=1, guidance_scale=1.0)
# Plain, crowded, dark and meaningless prompts: their values are those that float16 must hold.
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
    """Load all components of a checkpoint, one after the other, and check that they fit together.

    Returns each component's inputs. Raises CheckpointError, naming the component, if one cannot be
    loaded, does not run on the others' outputs, or returns values that are not finite.
    """
    run = Runner(checkpoint)
    pictures = [Picture(request, 0) for request in _requests(run, drawing)]
    _denoise(run, pictures)
    _decode(run, pictures)
    return dict(run.feeds)


def encode(checkpoint: Checkpoint, drawing: Drawing) -> list[Request]:
    """The denoiser's request for each picture, its prompts encoded; raises as ``rehearse`` does."""
    return _requests(Runner(checkpoint), drawing)


def _requests(run: Runner, drawing: Drawing) -> list[Request]:
    prepared = list(_prepare(run.checkpoint, drawing))
    embeddings = _encode(run, [fed for fed, _ in prepared])
    settings = [settings for _, settings in prepared]
    _encode_images(run, settings, embeddings)
    pairs = zip(embeddings, settings, strict=True)
    return [_request(run.checkpoint, *pair) for pair in pairs]


def _prepare(
    checkpoint: Checkpoint, drawing: Drawing
) -> Iterator[tuple[dict[str, Array], Settings]]:
    """Encoder inputs and settings of each picture, as ``<name>`` makes them."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tokens = write_tokenizers(checkpoint, folder / TOKENIZERS)
        templates = chat_templates(checkpoint)
        describe(checkpoint, checkpoint.family.name, tokens, templates).write(folder)
        with explained(f"{checkpoint.folder}: its tokenizers cannot be used"):
            preparer = Preparer(checkpoint.family, folder)
            for request in drawing.requests():
                if checkpoint.family.image_encoder:
                    request[START] = _start_image(*checkpoint.size)
                fed, settings = preparer(request, time.monotonic())
                yield fed, _shrunk(settings, checkpoint, drawing.largest_side)


def _start_image(height: int, width: int) -> Array:
    """A grey disc on a gradient from red to blue, uint8 (height, width, 3)."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    image = np.stack([127.5 * (1 - x), np.full_like(x, 32.0), 127.5 * (1 + x)], axis=-1)
    image[x**2 + y**2 < 0.25] = 160
    levels: Array = image.astype(np.uint8)
    return levels


def _shrunk(settings: Settings, checkpoint: Checkpoint, largest: int) -> Settings:
    """The settings of a square with the native side, at most ``largest`` pixels."""
    video, channels, scale = settings.video, settings.latent_shape[0], checkpoint.vae_scale
    if video:
        largest = min(largest, LARGEST_VIDEO_SIDE)
    side = min(checkpoint.sides.native, largest) // scale
    if video is None:
        return replace(settings, latent_shape=(channels, side, side))
    frames, pixels = 1 + video.frames, scale * side
    shape = (channels, video.latent_frames(frames), side, side)
    return replace(settings, frames=frames, height=pixels, width=pixels, latent_shape=shape)


def _encode(run: Runner, prepared: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    """The embeddings of each picture, by their names between the models."""
    embeddings: list[dict[str, Array]] = [{} for _ in prepared]
    for encoder in run.checkpoint.family.encoders:
        with run.loaded(encoder) as module:
            call = run.named(module, encoder)
            for role in ROLES:
                for fed, found in zip(prepared, embeddings, strict=True):
                    found |= encode_prompt(encoder, role, fed, call)
    return embeddings


def _encode_images(
    run: Runner, settings: Sequence[Settings], embeddings: Sequence[dict[str, Array]]
) -> None:
    """Add the latents of a video's first image, if the denoiser takes any."""
    encoder, size = run.checkpoint.family.image_encoder, run.checkpoint.size
    if encoder is None:
        return
    with run.loaded(encoder) as module:
        for asked, found in zip(settings, embeddings, strict=True):
            assert asked.video is not None
            image = _start_image(*size)[: asked.height, : asked.width]
            given = (run.named(module, encoder), image, None, asked, asked.video)
            found[INPAINT_LATENTS.name] = inpaint_latents(*given)


def _request(
    checkpoint: Checkpoint, embeddings: Mapping[str, Array], settings: Settings
) -> Request:
    shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in embeddings.items())
    with explained(f"{checkpoint.origin}: its text encoders do not fit together ({shapes})"):
        rows = checkpoint.family.row_conditioning(embeddings, settings)
    with explained(f"{checkpoint.folder / SCHEDULER} cannot be served"):
        steps = table(settings)
    told = checkpoint.family.shared(settings)
    return Request("", settings, rows, steps, send=_nobody, fail=_nobody, shared=told)


def _denoise(run: Runner, pictures: Sequence[Picture]) -> None:
    denoiser = run.checkpoint.family.denoiser
    with run.loaded(denoiser) as module:

        def predict(feed: Feed) -> Float32:
            (prediction,) = run(module, denoiser, feed)
            if prediction.shape != feed[LATENTS].shape:
                raise CheckpointError(
                    f"{run.checkpoint.place(denoiser)} gives {list(prediction.shape)} for latents "
                    f"{list(feed[LATENTS].shape)}; download the checkpoint again"
                )
            return prediction

        for picture in pictures:
            denoise([picture], predict)


def _decode(run: Runner, pictures: Sequence[Picture]) -> None:
    decoder, scale = run.checkpoint.family.decoder, run.checkpoint.vae_scale
    with run.loaded(decoder) as module:
        for picture in pictures:
            settings, latents = picture.request.settings, picture.state[X]
            due: tuple[int, ...] = (*(scale * side for side in latents.shape[-2:]), 3)
            due = (settings.frames, *due) if settings.video else due
            got = decode(decoder, latents, settings.video, run.named(module, decoder))
            _check_shape(run.checkpoint, got.shape, due)


def _check_shape(checkpoint: Checkpoint, got: tuple[int, ...], due: tuple[int, ...]) -> None:
    if got != due:
        kind = "videos" if checkpoint.family.makes_videos else "pictures"
        raise CheckpointError(
            f"{checkpoint.place(checkpoint.family.decoder)} makes {kind} of shape {list(got)} "
            f"where {list(due)} is expected; download the checkpoint again"
        )


def _nobody(*_answer: object) -> None:
    """Discards responses."""
