"""The decoder of an image autoencoder."""

from collections.abc import Mapping

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from stepwise.export.modules.exportable import Exportable


class VaeDecoder(Exportable):
    """The decoder of an autoencoder, from the denoiser's latents to pictures."""

    def __init__(self, model: AutoencoderKL) -> None:
        """Wrap the whole autoencoder; only its decoder is used."""
        super().__init__()
        self.model = model
        self.scaling = model.config.scaling_factor
        self.shift = model.config.shift_factor or 0.0

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Random latents."""
        channels = self.model.config.latent_channels
        return (torch.randn(sizes["batch"], channels, sizes["height"], sizes["width"]),)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (batch, channels, height, width) to uint8 pictures (batch, 8 h, 8 w, 3).

        Rounds like diffusers' VaeImageProcessor. The cast to uint8 comes last because TensorRT
        takes no uint8 inside a graph.
        """
        image: Tensor = self.levels(latents).round().permute(0, 2, 3, 1).to(torch.uint8)
        return image

    def levels(self, latents: Tensor) -> Tensor:
        """The pictures before they are rounded: float levels (batch, 3, 8 h, 8 w) from 0 to 255."""
        decoded = self.model.decode(latents / self.scaling + self.shift, return_dict=False)[0]
        levels: Tensor = (decoded * 0.5 + 0.5).clamp(0, 1) * 255
        return levels
