"""Torch modules with the inputs and outputs that the graphs have, around those of a checkpoint."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, UNet2DConditionModel
from diffusers.models.embeddings import PatchEmbed
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel

from export.errors import CheckpointError
from export.exportable import Exportable, random_ids


class ClipText(Exportable):
    """A CLIP text encoder as SD3 and SDXL read it."""

    def __init__(self, model: CLIPTextModel | CLIPTextModelWithProjection) -> None:
        """Wrap a text encoder with or without a projection."""
        super().__init__()
        self.model = model
        self.projects = isinstance(model, CLIPTextModelWithProjection)

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Random token ids, and numbers of layers to skip."""
        ids = random_ids(self.model.config.vocab_size, sizes)
        return ids, torch.randint(self.model.config.num_hidden_layers, (len(ids), 1))

    def forward(self, ids: Tensor, clip_skip: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """The last layer but one and ``clip_skip`` (batch, tokens, hidden), and any projection.

        ``ids`` are (batch, tokens), ``clip_skip`` is (batch, 1), the projection (batch, pooled).
        """
        output = self.model(ids, output_hidden_states=True)
        layers = torch.stack(output.hidden_states, dim=1)
        kept = layers.shape[1] - 2 - clip_skip[:, 0]
        hidden_states = layers[torch.arange(ids.shape[0]), kept]
        return (hidden_states, output.text_embeds) if self.projects else hidden_states


class StoredT5(T5EncoderModel):
    """A T5 encoder all of whose weights are loaded in the type that is asked for.

    transformers widens ``wo``, a fifth of them, because its products overflow float16. Ours are
    computed in float32 whatever weights are stored in.
    """

    def _get_dtype_plan(self, dtype: torch.dtype) -> dict[str, torch.dtype]:
        return {}


class T5Text(Exportable):
    """A T5 encoder."""

    def __init__(self, model: T5EncoderModel) -> None:
        """Wrap an encoder without a decoder."""
        super().__init__()
        self.model = model

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Random token ids."""
        return (random_ids(self.model.config.vocab_size, sizes),)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (batch, tokens) to the last hidden states (batch, tokens, hidden)."""
        hidden_states: Tensor = self.model(ids).last_hidden_state
        return hidden_states


class ZeroText(Exportable):
    """Stands in for a text encoder that the checkpoint lacks, with zeros as in diffusers."""

    def __init__(self, width: int) -> None:
        """``width`` is that of the denoiser's text input."""
        super().__init__()
        self.width = width

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Ids of which nothing depends."""
        return (random_ids(2, sizes),)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (batch, tokens) to zeros (batch, tokens, width)."""
        return torch.zeros(*ids.shape, self.width)


class CroppedPatches(nn.Module):
    """SD3's patch embedding plus the middle of its grid of position embeddings.

    The same values as diffusers' PatchEmbed, whose crop starts at ``(grid - patches) // 2``. The
    tracer turns that into a division of a negative number, which ONNX rounds towards zero: graphs
    of an odd number of patches would be wrong. Here nothing negative is divided.
    """

    def __init__(self, embedding: PatchEmbed) -> None:
        """Take over the projection and the grid of ``embedding``."""
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
        """Wrap the transformer, replacing its patch embedding."""
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


class SdxlUnet(Exportable):
    """SDXL's UNet, for latents of any size."""

    def __init__(self, model: UNet2DConditionModel) -> None:
        """Wrap the UNet; CheckpointError if it wants other inputs than SDXL's."""
        super().__init__()
        for option, (got, due) in _unet_options(model.config).items():
            if got != due:
                raise CheckpointError(
                    f"the UNet has {option}={got!r} where SDXL's has {due!r}: it is another model's"
                )
        # diffusers hands on the sizes that skip connections have only where a side is no multiple
        # of this power, and decides so while it is traced. No side is one of such a power.
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


_ALWAYS_HAND_ON = 30


def _unet_options(config: Any) -> dict[str, tuple[Any, Any]]:
    """What changes a UNet's inputs: what it is and what it is in SDXL."""
    return {
        "addition_embed_type": (config.addition_embed_type, "text_time"),
        "class_embed_type": (config.class_embed_type, None),
        "time_cond_proj_dim": (config.time_cond_proj_dim, None),
        "in_channels": (config.in_channels, config.out_channels),
    }


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
        """The same before it is rounded: float levels (batch, 3, 8 h, 8 w) from 0 to 255."""
        decoded = self.model.decode(latents / self.scaling + self.shift, return_dict=False)[0]
        levels: Tensor = (decoded * 0.5 + 0.5).clamp(0, 1) * 255
        return levels
