"""Draws pictures with a UNet in torch, in batches, to measure the effect of quantization."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from stepwise.batching.request import Request
from stepwise.export.checkpoint.folder import Checkpoint
from stepwise.export.loading.loader import load
from stepwise.export.modules.exportable import Exportable
from stepwise.export.modules.vae import VaeDecoder
from stepwise.export.preflight.smoke_test import Drawing, encode
from stepwise.export.quantize.layers import Layer, find
from stepwise.local.steps import Predict, denoise

# Pictures per batch.
AT_ONCE = 4
_TEXT = "encoder_hidden_states"
Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Feed = Mapping[str, Array]


@dataclass(frozen=True)
class Study:
    """A UNet with the decoder and the requests that show the effect of quantizing it.

    ``unet`` is diffusers' own module inside ``denoiser``; ``requests`` are the pictures to draw.
    """

    denoiser: Exportable
    decoder: VaeDecoder
    requests: tuple[Request, ...]

    @property
    def unet(self) -> nn.Module:
        """The model to quantize."""
        model: nn.Module = self.denoiser.get_submodule("model")
        return model

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers of the UNet that can be quantized."""
        return find(self.unet)

    @property
    def texts(self) -> Array:
        """The text embeddings of each picture's prompt, (pictures, tokens, width)."""
        return np.stack([request.row_conditioning[-1][_TEXT] for request in self.requests])

    def predict(self, feed: Feed) -> Float32:
        """One denoiser call."""
        with torch.inference_mode():
            prediction: Tensor = self.denoiser(*map(torch.from_numpy, feed.values()))
        found: Float32 = prediction.numpy()
        return found

    def decode(self, latents: Float32) -> Float32:
        """Latents (pictures, channels, height, width) to pictures (pictures, 3, height, width).

        They are levels from 0 to 255, not rounded, which would hide the effect of a single layer.
        """
        with torch.inference_mode():
            found: Float32 = self.decoder.levels(torch.from_numpy(latents)).numpy()
        return found

    def pictures(self) -> Float32:
        """All pictures, (pictures, 3, height, width), as the UNet draws them now."""
        parts = batches(self.requests)
        return np.concatenate([self.decode(draw(self.predict, part)) for part in parts])


def open_study(checkpoint: Checkpoint, drawing: Drawing) -> Study:
    """Encode the prompts and load the denoiser and the decoder; raises CheckpointError."""
    requests = encode(checkpoint, drawing)
    parts = (checkpoint.family.denoiser, checkpoint.family.decoder)
    denoiser, decoder = (load(checkpoint, part) for part in parts)
    assert isinstance(decoder, VaeDecoder)
    return Study(denoiser, decoder, tuple(requests))


def batches(requests: Sequence[Request]) -> Iterator[Sequence[Request]]:
    """Requests in batches of ``AT_ONCE``."""
    for start in range(0, len(requests), AT_ONCE):
        yield requests[start : start + AT_ONCE]


def draw(predict: Predict, requests: Iterable[Request]) -> Float32:
    """Latents of one picture for each request, drawn together as the server draws them.

    All must have the same number of steps and the same shapes. Returns (pictures, channels, height,
    width).
    """
    return denoise([next(request.pictures()) for request in requests], predict)
