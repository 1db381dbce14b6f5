"""Stable Diffusion 3: three text encoders, a multimodal transformer, 16 latent channels."""

from collections.abc import Mapping

import numpy as np

from stepwise.description.family import Conditioning, Defaults, Family, Limits
from stepwise.description.fields import Array
from stepwise.description.settings import Settings
from stepwise.description.spec import SERVING, Component, Range, Tensor, pictures
from stepwise.families.stable_diffusion import REQUEST, TOKENS, VAE_DECODER, clip_encoder


def _conditioning(embeddings: Mapping[str, Array], role: str, settings: Settings) -> Conditioning:
    """Combine SD3's embeddings as StableDiffusion3Pipeline.encode_prompt does.

    CLIP-L and CLIP-G are concatenated by channel and padded with zeros to T5's width. T5's tokens
    follow them, and the pooled vectors are concatenated. ``role`` is "" or "negative_". Returns
    ``encoder_hidden_states`` (tokens, width) and ``pooled_projections`` (pooled,).
    """
    clip_l, clip_g, t5 = (
        embeddings[f"{role}{encoder}_hidden_states"][0] for encoder in ("clip_l", "clip_g", "t5")
    )
    clip = np.concatenate([clip_l, clip_g], axis=-1)
    clip = np.pad(clip, ((0, 0), (0, t5.shape[-1] - clip.shape[-1])))
    pooled = [embeddings[f"{role}{encoder}_pooled"][0] for encoder in ("clip_l", "clip_g")]
    return {
        "encoder_hidden_states": np.concatenate([clip, t5]),
        "pooled_projections": np.concatenate(pooled),
    }


SD3 = Family(
    name="sd3",
    diffusers_class="StableDiffusion3Pipeline",
    encoders=(
        clip_encoder("clip_l", ""),
        clip_encoder("clip_g", "_2"),
        Component(
            name="t5",
            subfolder="text_encoder_3",
            tokenizer="tokenizer_3",
            inputs=(TOKENS,),
            outputs=(Tensor("hidden_states", "FP32", ("batch", "tokens", -1)),),
            max_batch=8,
            optional=True,
        ),
    ),
    denoiser=Component(
        name="transformer",
        subfolder="transformer",
        inputs=(
            Tensor("latents", "FP32", ("batch", -1, "height", "width")),
            Tensor("timestep", "FP32", ("batch",)),
            Tensor("encoder_hidden_states", "FP32", ("batch", "text", -1)),
            Tensor("pooled_projections", "FP32", ("batch", -1)),
        ),
        outputs=(Tensor("prediction", "FP32", ("batch", -1, "height", "width")),),
    ),
    decoder=VAE_DECODER,
    request=(*REQUEST, *SERVING),
    response=pictures(Tensor("image", "UINT8", (-1, -1, 3))),
    defaults=Defaults(steps=28, guidance_scale=7.0, sampler="euler"),
    limits=Limits(
        steps=(1, 100),
        guidance_scale=(0.0, 30.0),
        num_images=(1, 16),
        side_factors=(0.5, 1.5),
        prompt_bytes=1 << 20,
    ),
    ranges={"batch": Range(1, 2, 16), "tokens": Range(1, 77, 512), "text": Range(1, 333, 589)},
    max_rows=16,
    conditioning=_conditioning,
    largest_grid="pos_embed_max_size",
)
