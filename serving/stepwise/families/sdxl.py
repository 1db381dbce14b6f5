"""The SDXL family: two text encoders, a UNet with micro-conditioning, 4 latent channels.

``sdxl`` supports guidance, negative prompts and tens of steps. ``sdxl_turbo`` is for checkpoints
distilled to one to four steps without guidance (arXiv 2311.17042).
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from stepwise.description.family import Conditioning, Defaults, Family, Limits
from stepwise.description.fields import Array
from stepwise.description.settings import Settings
from stepwise.description.spec import SERVING, Component, Range, Tensor, pictures
from stepwise.families.stable_diffusion import REQUEST, VAE_DECODER, clip_encoder

# Height and width of HelloWorld XL 7.0's training pictures, in its author's order.
BUCKETS = (
    (1248, 832),
    (1152, 896),
    (832, 1248),
    (1024, 1024),
    (768, 1360),
    (896, 1152),
    (1360, 768),
    (1088, 960),
    (1056, 992),
    (960, 1088),
    (1472, 704),
    (992, 1056),
    (704, 1472),
    (640, 1632),
    (1632, 640),
)


def _conditioning(embeddings: Mapping[str, Array], role: str, settings: Settings) -> Conditioning:
    """Combine SDXL's embeddings as StableDiffusionXLPipeline does.

    CLIP-L and CLIP-G are concatenated by channel; only CLIP-G is pooled. An absent negative prompt
    becomes zeros if the checkpoint says so. Returns ``encoder_hidden_states`` (tokens, width),
    ``text_embeds`` (pooled,) and ``time_ids`` (6,), which both prompts share.
    """
    zero = bool(role) and settings.zero_negative
    # Zeros have the shape of the prompt's embeddings; a zero negative prompt is not encoded.
    given = "" if zero else role
    clips = [embeddings[f"{given}{encoder}_hidden_states"][0] for encoder in ("clip_l", "clip_g")]
    hidden, pooled = np.concatenate(clips, axis=-1), embeddings[f"{given}clip_g_pooled"][0]
    if zero:
        hidden, pooled = np.zeros_like(hidden), np.zeros_like(pooled)
    return {
        "encoder_hidden_states": hidden,
        "text_embeds": pooled,
        "time_ids": np.asarray(settings.time_ids, np.float32),
    }


SDXL = Family(
    name="sdxl",
    diffusers_class="StableDiffusionXLPipeline",
    encoders=(clip_encoder("clip_l", "", pooled=False), clip_encoder("clip_g", "_2")),
    denoiser=Component(
        name="unet",
        subfolder="unet",
        inputs=(
            Tensor("latents", "FP32", ("batch", -1, "height", "width")),
            Tensor("timestep", "FP32", ("batch",)),
            Tensor("encoder_hidden_states", "FP32", ("batch", "text", -1)),
            Tensor("text_embeds", "FP32", ("batch", -1)),
            Tensor("time_ids", "FP32", ("batch", 6)),
        ),
        outputs=(Tensor("prediction", "FP32", ("batch", -1, "height", "width")),),
    ),
    decoder=VAE_DECODER,
    request=(
        *REQUEST,
        Tensor("bucket", "BYTES", (1,), optional=True),
        # Height and width, or top and left, in pixels.
        Tensor("original_size", "INT32", (2,), optional=True),
        Tensor("crop", "INT32", (2,), optional=True),
        Tensor("target_size", "INT32", (2,), optional=True),
        *SERVING,
    ),
    response=pictures(Tensor("image", "UINT8", (-1, -1, 3))),
    defaults=Defaults(steps=30, guidance_scale=5.0, sampler="euler", negative_prompt=None),
    limits=Limits(
        steps=(1, 100),
        guidance_scale=(0.0, 30.0),
        num_images=(1, 16),
        side_factors=(640 / 1024, 1632 / 1024),
        prompt_bytes=1 << 20,
    ),
    ranges={"batch": Range(1, 2, 16), "tokens": Range(1, 77, 77), "text": Range(1, 77, 77)},
    max_rows=16,
    conditioning=_conditioning,
    side_multiple=8,
    buckets=BUCKETS,
    zero_negative=True,
)

SDXL_TURBO = replace(
    SDXL,
    name="sdxl_turbo",
    defaults=Defaults(
        steps=1, guidance_scale=0.0, sampler="euler_ancestral_trailing", negative_prompt=None
    ),
    limits=replace(SDXL.limits, steps=(1, 4)),
)
