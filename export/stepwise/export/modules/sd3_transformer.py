"""SD3's multimodal diffusion transformer."""

from collections.abc import Mapping

import torch
from diffusers import SD3Transformer2DModel
from diffusers.models.embeddings import PatchEmbed
from torch import Tensor, nn

from stepwise.export.modules.exportable import Exportable


class CroppedPatches(nn.Module):
    """SD3's patch embedding plus the middle of its grid of position embeddings.

    Computes the same values as diffusers' PatchEmbed, which crops from ``(grid - patches) // 2``.
    The tracer turns that into a division of a negative number, which ONNX rounds towards zero, so
    graphs for an odd number of patches would be wrong. This module divides no negative numbers.
    """

    def __init__(self, embedding: PatchEmbed) -> None:
        """Take the projection and the grid from ``embedding``."""
        super().__init__()
        self.projection = embedding.proj
        grid = embedding.pos_embed_max_size
        self.register_buffer("positions", embedding.pos_embed.reshape(1, grid, grid, -1))

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (batch, channels, height, width) to (batch, patches, embedding)."""
        patches = self.projection(latents)
        height, width = patches.shape[-2:]
        positions = self.get_buffer("positions")
        rows, columns = (_middle(positions.shape[1], size) for size in (height, width))
        cropped = positions[:, rows : rows + height, columns : columns + width]
        embedded: Tensor = patches.flatten(2).transpose(1, 2) + cropped.flatten(1, 2)
        return embedded


def _middle(grid: int, size: int) -> int:
    """``(grid - size) // 2``, dividing positive numbers only."""
    return grid // 2 - (size + 1 - grid % 2) // 2


class Sd3Transformer(Exportable):
    """SD3's multimodal diffusion transformer."""

    def __init__(self, model: SD3Transformer2DModel) -> None:
        """Wrap the transformer and replace its patch embedding."""
        super().__init__()
        model.pos_embed = CroppedPatches(model.pos_embed)
        self.model = model

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Random latents, timesteps, embeddings and pooled embeddings."""
        config, batch = self.model.config, sizes["batch"]
        return (
            torch.randn(batch, config.in_channels, sizes["height"], sizes["width"]),
            1000 * torch.rand(batch),
            torch.randn(batch, sizes["text"], config.joint_attention_dim),
            torch.randn(batch, config.pooled_projection_dim),
        )

    def forward(self, latents: Tensor, timestep: Tensor, text: Tensor, pooled: Tensor) -> Tensor:
        """The velocity at ``latents`` (batch, channels, height, width), in the same shape.

        ``timestep`` (batch) is in [0, 1000]; ``text`` is (batch, text, joint), ``pooled`` (batch,
        pooled).
        """
        prediction: Tensor = self.model(
            hidden_states=latents,
            timestep=timestep,
            encoder_hidden_states=text,
            pooled_projections=pooled,
            return_dict=False,
        )[0]
        return prediction
