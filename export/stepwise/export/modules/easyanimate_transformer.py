"""EasyAnimate's transformer, with its rotary tables as inputs."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import EasyAnimateTransformer3DModel
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn

from stepwise.export.modules.exportable import Exportable

# Layers of an attention: for patches, and for texts in blocks that have separate ones.
_SHARED = ("to_q", "to_k", "to_v", "norm_q", "norm_k")
_ADDED = ("add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k")


class RotatedAttention:
    """Joint attention over texts and patches, which rotates patches by their positions.

    Computes the same values as diffusers' EasyAnimateAttnProcessor2_0, which rotates in place.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Patches (batch, patches, width) and texts (batch, text, width) to the same shapes."""
        own = attn.add_q_proj is not None
        texts = _projected(attn, _ADDED if own else _SHARED, encoder_hidden_states)
        query, key, value = _projected(attn, _SHARED, hidden_states)
        query, key = (apply_rotary_emb(states, image_rotary_emb) for states in (query, key))
        query, key, value = (
            torch.cat(pair, dim=2) for pair in zip(texts, (query, key, value), strict=True)
        )
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        attended, count = attended.transpose(1, 2).flatten(2, 3), encoder_hidden_states.shape[1]
        text = attended[:, :count]
        return attn.to_out[0](attended[:, count:]), attn.to_add_out(text) if own else text


def _projected(attn: Any, layers: tuple[str, ...], states: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values (batch, heads, count, head width) of (batch, count, width)."""
    to_query, to_key, to_value, norm_query, norm_key = (getattr(attn, name) for name in layers)
    query, key, value = (
        layer(states).unflatten(2, (attn.heads, -1)).transpose(1, 2)
        for layer in (to_query, to_key, to_value)
    )
    return norm_query(query), norm_key(key), value


class EasyAnimateTransformer(Exportable):
    """EasyAnimate's multimodal diffusion transformer over all frames of a video."""

    def __init__(self, model: EasyAnimateTransformer3DModel) -> None:
        """Wrap the transformer and replace its attention."""
        super().__init__()
        for block in model.transformer_blocks:
            block.attn1.set_processor(RotatedAttention())
        self.model = model
        self.patch, self.channels = model.config.patch_size, model.config.out_channels
        # The channels of a mask and of image latents, for videos that continue images.
        self.inpaint_channels = model.config.in_channels - self.channels

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Random latents, timesteps, embeddings, rotary tables and, where needed, images."""
        config, batch = self.model.config, sizes["batch"]
        frames, height, width = sides = tuple(sizes[axis] for axis in ("frames", "height", "width"))
        patches = frames * (height // self.patch) * (width // self.patch)
        angles = torch.rand(patches, config.attention_head_dim)
        given = (
            torch.randn(batch, self.channels, *sides),
            1000 * torch.rand(batch),
            torch.randn(batch, sizes["text"], config.text_embed_dim),
            angles.cos(),
            angles.sin(),
        )
        inpaint = torch.randn(batch, self.inpaint_channels, *sides)
        return (*given, inpaint) if self.inpaint_channels else given

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        text: Tensor,
        rotary_cos: Tensor,
        rotary_sin: Tensor,
        inpaint_latents: Tensor | None = None,
    ) -> Tensor:
        """The velocity at ``latents`` (batch, channels, frames, height, width), in the same shape.

        ``timestep`` (batch) is in [0, 1000]; ``text`` is (batch, text, hidden), the tables are
        (frames * height / 2 * width / 2, head width), ``inpaint_latents`` (batch, 1 + channels,
        frames, height, width).
        """
        model = self.model
        temb = model.time_embedding(model.time_proj(timestep))
        given = latents if inpaint_latents is None else torch.cat([latents, inpaint_latents], 1)
        patches, text = self._patches(given), model.text_proj(text)
        for block in model.transformer_blocks:
            patches, text = block(patches, text, temb, (rotary_cos, rotary_sin))
        patches = model.norm_out(model.norm_final(patches), temb=temb)
        return self._video(model.proj_out(patches), latents)

    def _patches(self, latents: Tensor) -> Tensor:
        """Latents (batch, channels, frames, height, width) to (batch, patches, width)."""
        batch, _, frames = latents.shape[:3]
        embedded = self.model.proj(latents.transpose(1, 2).flatten(0, 1)).flatten(2)
        patches: Tensor = embedded.unflatten(0, (batch, frames)).transpose(2, 3).flatten(1, 2)
        return patches

    def _video(self, patches: Tensor, latents: Tensor) -> Tensor:
        """Patches (batch, patches, values) to the shape of ``latents``."""
        batch, _, frames, height, width = latents.shape
        side = self.patch
        grid = (batch, frames, height // side, width // side, self.channels, side, side)
        ordered = patches.reshape(grid).permute(0, 4, 1, 2, 5, 3, 6)
        return ordered.flatten(5, 6).flatten(3, 4)
