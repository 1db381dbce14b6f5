"""Draws one picture of one step with torch, before anything of an export is written."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from export.checkpoint import SCHEDULER, Checkpoint
from export.errors import CheckpointError, reason
from export.loading import load
from export.target import describe
from export.tokenizer import token_length, write_tokenizer
from pipelines.conditioning import slots
from pipelines.inflight.request import table
from pipelines.manifest import TOKENIZERS
from pipelines.prepare import Preparer
from pipelines.settings import Settings
from pipelines.spec import Component, ensemble_name

Array = npt.NDArray[Any]

_REQUEST = {
    "prompt": np.asarray([b"a large red star"], np.object_),
    "steps": np.asarray([1], np.int32),
    "guidance_scale": np.asarray([1.0], np.float32),
    "seed": np.asarray([0], np.int64),
}


def rehearse(checkpoint: Checkpoint) -> None:
    """Load every part of a checkpoint, one after the other, and see that they fit together.

    Raises CheckpointError, naming the part, for one that cannot be loaded, does not run on what
    the others give, or gives anything but finite numbers.
    """
    pipeline = checkpoint.pipeline
    fed, settings = _prepare(checkpoint)
    embeddings: dict[str, Array] = {}
    for encoder in pipeline.encoders:
        inputs = [fed[ensemble_name("", encoder, tensor)] for tensor in encoder.inputs]
        for tensor, value in zip(encoder.outputs, _run(checkpoint, encoder, *inputs), strict=True):
            embeddings[ensemble_name("", encoder, tensor)] = value
    shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in embeddings.items())
    with _explained(f"{checkpoint.origin}: its text encoders do not go together ({shapes})"):
        (conditioning,) = slots(pipeline, embeddings, settings)
    with _explained(f"{checkpoint.folder / SCHEDULER} cannot be served"):
        timestep = table(settings).timestep[:1].astype(np.float32)
    latents = np.zeros((1, *settings.latent_shape), np.float32)
    values = [value[None] for value in conditioning.values()]
    (prediction,) = _run(checkpoint, pipeline.denoiser, latents, timestep, *values)
    (picture,) = _run(checkpoint, pipeline.decoder, prediction)
    _check_picture(checkpoint, picture)


def _prepare(checkpoint: Checkpoint) -> tuple[dict[str, Array], Settings]:
    """Encoder inputs and settings of the request, as ``<name>_prepare`` will make them."""
    with TemporaryDirectory() as scratch:
        folder, tokens = Path(scratch), {}
        (folder / TOKENIZERS).mkdir()
        for encoder in checkpoint.pipeline.encoders:
            tokens[encoder.name] = token_length(checkpoint, encoder)
            if encoder.name not in checkpoint.missing:
                path = folder / TOKENIZERS / f"{encoder.name}.json"
                write_tokenizer(checkpoint.folder / encoder.tokenizer, tokens[encoder.name], path)
        describe(checkpoint, checkpoint.pipeline.family, tokens).write(folder)
        with _explained(f"{checkpoint.folder}: its tokenizers cannot be used"):
            return Preparer(checkpoint.pipeline, folder)(_REQUEST, time.monotonic())


def _run(checkpoint: Checkpoint, component: Component, *inputs: Array) -> list[Array]:
    place, module = checkpoint.place(component), load(checkpoint, component)
    with _explained(f"{place} loads but does not run"), torch.inference_mode():
        outputs = module(*map(torch.from_numpy, inputs))
        arrays = [
            output.numpy() for output in (outputs if len(component.outputs) > 1 else [outputs])
        ]
    if not all(np.isfinite(array).all() for array in arrays):
        raise CheckpointError(
            f"{place} gives values that are no finite numbers: its weights are damaged; "
            "download it again"
        )
    return arrays


def _check_picture(checkpoint: Checkpoint, picture: Array) -> None:
    side = checkpoint.sides.native
    if picture.shape != (1, side, side, 3):
        raise CheckpointError(
            f"{checkpoint.place(checkpoint.pipeline.decoder)} makes pictures of shape "
            f"{list(picture.shape[1:])} where {[side, side, 3]} is due; download the checkpoint "
            "again"
        )


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn whatever the libraries raise for a damaged checkpoint into one sentence."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{what}: {reason(error)}; download the checkpoint again") from error
