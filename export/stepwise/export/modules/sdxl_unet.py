"""SDXL's UNet."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from stepwise.export.errors import CheckpointError
from stepwise.export.modules.exportable import Exportable

# More levels than any UNet has.
_ALWAYS_HAND_ON = 30


class SdxlUnet(Exportable):
    """SDXL's UNet, for latents of any size."""

    def __init__(self, model: UNet2DConditionModel) -> None:
        """Wrap the UNet; CheckpointError if its inputs differ from SDXL's."""
        super().__init__()
        for option, (got, due) in _unet_options(model.config).items():
            if got != due:
                raise CheckpointError(
                    f"the UNet has {option}={got!r} where SDXL's has {due!r}: it is not SDXL's"
                )
        # diffusers passes the sizes of skip connections on only if a side is no multiple of this
        # power of two, and decides that during tracing. No side is a multiple of so large a power.
        model.num_upsamplers = _ALWAYS_HAND_ON
        self.model = model

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Random latents, timesteps, embeddings, pooled embeddings and picture sizes."""
        config, batch = self.model.config, sizes["batch"]
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        return (
            torch.randn(batch, config.in_channels, sizes["height"], sizes["width"]),
            1000 * torch.rand(batch),
            torch.randn(batch, sizes["text"], config.cross_attention_dim),
            torch.randn(batch, pooled),
            torch.randint(2048, (batch, 6)).float(),
        )

    def forward(
        self, latents: Tensor, timestep: Tensor, text: Tensor, text_embeds: Tensor, time_ids: Tensor
    ) -> Tensor:
        """The prediction at ``latents`` (batch, channels, height, width), in the same shape.

        ``timestep`` (batch) is in [0, 1000]; ``text`` is (batch, text, hidden), ``text_embeds``
        (batch, pooled), ``time_ids`` (batch, 6) in pixels.
        """
        prediction: Tensor = self.model(
            latents,
            timestep,
            encoder_hidden_states=text,
            added_cond_kwargs={"text_embeds": text_embeds, "time_ids": time_ids},
            return_dict=False,
        )[0]
        return prediction


def _unet_options(config: Any) -> dict[str, tuple[Any, Any]]:
    """The options that change a UNet's inputs: their values in this UNet and in SDXL's."""
    return {
        "addition_embed_type": (config.addition_embed_type, "text_time"),
        "class_embed_type": (config.class_embed_type, None),
        "time_cond_proj_dim": (config.time_cond_proj_dim, None),
        "in_channels": (config.in_channels, config.out_channels),
    }
