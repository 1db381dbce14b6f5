"""EasyAnimate's video autoencoder as two graphs, for one slice of a video after another."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKLMagvit
from torch import Tensor, nn

from stepwise.description.vae_caches import Cache
from stepwise.export.errors import CheckpointError
from stepwise.export.modules.exportable import Exportable
from stepwise.export.modules.magvit import StreamedConv3d, streamed

# What one more frame of latents is made of, and the sides of the pictures in one latent's place.
FRAMES, SCALE = 4, 8
ENCODER, DECODER = "vae_encoder", "vae_decoder"


class VideoDecoder(Exportable):
    """The decoder of a video autoencoder, from the denoiser's latents to levels."""

    def __init__(self, model: AutoencoderKLMagvit) -> None:
        """Take an autoencoder, without its encoder from then on."""
        super().__init__()
        _, self.stream = streamed(model)
        self.caches = caches(model.config)[DECODER]
        self.channels, self.scaling = model.config.latent_channels, model.config.scaling_factor
        self.post_quant_conv, self.decoder = model.post_quant_conv, model.decoder

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Random latents, whether they begin a video, and random caches."""
        sides = (sizes["height"], sizes["width"])
        latents = torch.randn(1, self.channels, sizes["slice"], *sides)
        return latents, _first(sizes), *_seen(self.caches, sizes)

    def forward(self, latents: Tensor, first: Tensor, *seen: Tensor) -> tuple[Tensor, ...]:
        """Levels (1, 3, 4 slice, 8 height, 8 width), about -1 to 1, and what comes to be seen.

        ``latents`` are (1, channels, slice, height, width). ``first`` is int32 (1,): 1 if they are
        the one frame of latents that begins a video, of which four equal frames come, and else 0.
        """
        self.stream.begin(first.bool(), seen)
        # Not a division: this is how EasyAnimatePipeline rounds.
        levels = self.decoder(self.post_quant_conv(1 / self.scaling * latents))
        return levels, *self.stream.end()


class VideoEncoder(Exportable):
    """The encoder of a video autoencoder, from levels to the denoiser's latents."""

    def __init__(self, model: AutoencoderKLMagvit) -> None:
        """Take an autoencoder, without its decoder from then on."""
        super().__init__()
        self.stream, _ = streamed(model)
        self.caches = caches(model.config)[ENCODER]
        self.channels, self.scaling = model.config.latent_channels, model.config.scaling_factor
        self.encoder, self.quant_conv = model.encoder, model.quant_conv

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Random levels, whether they begin a video, and random caches."""
        sides = (SCALE * sizes["height"], SCALE * sizes["width"])
        levels = 2 * torch.rand(1, 3, FRAMES, *sides) - 1
        return levels, _first(sizes), *_seen(self.caches, sizes)

    def forward(self, levels: Tensor, first: Tensor, *seen: Tensor) -> tuple[Tensor, ...]:
        """Latents (1, channels, 1, height, width), and what comes to be seen.

        ``levels`` are (1, 3, 4, 8 height, 8 width) from -1 to 1. ``first`` is int32 (1,): 1 if they
        are four times the first frame of a video, and else 0.
        """
        self.stream.begin(first.bool(), seen)
        moments = self.quant_conv(self.encoder(levels))
        return moments[:, : self.channels] * self.scaling, *self.stream.end()


def _first(sizes: Mapping[str, int]) -> Tensor:
    return torch.tensor([sizes["first"]], dtype=torch.int32)


def _seen(caches: tuple[Cache, ...], sizes: Mapping[str, int]) -> list[Tensor]:
    sides = (sizes["height"], sizes["width"])
    return [torch.randn(cache.empty(*sides).shape) for cache in caches]


def caches(config: Mapping[str, Any]) -> dict[str, tuple[Cache, ...]]:
    """What the convolutions of each part must have seen before a slice, in their own order.

    By the names of the components. Of the autoencoder only its config is needed. CheckpointError
    if it cannot be served.
    """
    # diffusers warns of others, such as cache_mag_vae, which its pipeline reads.
    known = inspect.signature(AutoencoderKLMagvit.__init__).parameters
    with torch.device("meta"):
        model = AutoencoderKLMagvit(**{name: config[name] for name in config if name in known})
        streamed(model)
        channels = model.config.latent_channels
        levels, latents = (1, 3, 1 + FRAMES, SCALE, SCALE), (1, channels, 2, 1, 1)
        return {
            ENCODER: _caches(model.encoder, torch.empty(levels), (1, 2 * channels, 2, 1, 1)),
            DECODER: _caches(model.decoder, torch.empty(latents), levels),
        }


def _caches(part: nn.Module, frames: Tensor, due: tuple[int, ...]) -> tuple[Cache, ...]:
    """Run a part on a video of two frames of latents, and note what its convolutions are given."""
    found: list[Cache] = []

    def note(convolution: nn.Module, given: tuple[Tensor]) -> None:
        assert isinstance(convolution, StreamedConv3d)
        _, channels, _, _, side = given[0].shape
        found.append(Cache(channels, convolution.memory, side))

    for convolution in part.modules():
        if isinstance(convolution, StreamedConv3d):
            convolution.register_forward_pre_hook(note)
    made = part(frames)
    if made.shape != due:
        raise CheckpointError(
            f"the autoencoder makes {list(made.shape)} of {list(frames.shape)} where {list(due)} "
            f"is due; only those are served that have {FRAMES} frames and {SCALE} x {SCALE} "
            "pixels to a latent"
        )
    return tuple(found)
