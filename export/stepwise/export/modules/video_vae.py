"""EasyAnimate's video autoencoder as two graphs that process a video slice by slice."""

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

# Video frames per frame of latents after the first, and pixels per latent along a side.
FRAMES, SCALE = 4, 8
ENCODER, DECODER = "vae_encoder", "vae_decoder"


class VideoDecoder(Exportable):
    """The decoder of a video autoencoder, from the denoiser's latents to levels."""

    def __init__(self, model: AutoencoderKLMagvit) -> None:
        """Take an autoencoder and drop its encoder."""
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
        """Levels (1, 3, 4 slice, 8 height, 8 width), about -1 to 1, and caches for the next slice.

        ``latents`` are (1, channels, slice, height, width). ``first`` is int32 (1,): 1 if they are
        the one frame of latents that begins a video, which gives four equal frames, else 0.
        ``seen`` are the caches of the previous slice.
        """
        self.stream.begin(first.bool(), seen)
        # A product, not a division: EasyAnimatePipeline rounds this way.
        levels = self.decoder(self.post_quant_conv(1 / self.scaling * latents))
        return levels, *self.stream.end()


class VideoEncoder(Exportable):
    """The encoder of a video autoencoder, from levels to the denoiser's latents."""

    def __init__(self, model: AutoencoderKLMagvit) -> None:
        """Take an autoencoder and drop its decoder."""
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
        """Latents (1, channels, 1, height, width), and caches for the next slice.

        ``levels`` are (1, 3, 4, 8 height, 8 width) from -1 to 1. ``first`` is int32 (1,): 1 if they
        are the first frame of a video four times, else 0. ``seen`` are the caches of the previous
        slice.
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
    """The caches of the convolutions before a slice, in their order, by the components' names.

    Only the autoencoder's config is needed. Raises CheckpointError if it is not supported.
    """
    # diffusers warns of other options, such as cache_mag_vae, which its pipeline reads.
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
    """Run a part on a video of two frames of latents and note the inputs of its convolutions."""
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
            f"is expected; allowed are {FRAMES} frames and {SCALE} x {SCALE} pixels per latent"
        )
    return tuple(found)
