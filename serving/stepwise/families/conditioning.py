"""Encoder outputs in, denoiser inputs out."""

from collections.abc import Callable, Mapping

import numpy as np

from pipelines import rotary
from pipelines.fields import Array
from pipelines.settings import Settings
from pipelines.spec import INPAINT_LATENTS, Component, Pipeline, ensemble_name

# What one slot of the batch feeds the denoiser beside latents and timestep, without batch dim.
Conditioning = dict[str, Array]


def sd3(embeddings: Mapping[str, Array], role: str, settings: Settings) -> Conditioning:
    """Put SD3's embeddings together as StableDiffusion3Pipeline.encode_prompt does.

    CLIP-L and CLIP-G stand side by side, padded with zeros to T5's width, T5's tokens after
    them; the pooled vectors are joined. ``role`` is "" or "negative_". Returns
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


def sdxl(embeddings: Mapping[str, Array], role: str, settings: Settings) -> Conditioning:
    """Put SDXL's embeddings together as StableDiffusionXLPipeline does.

    CLIP-L and CLIP-G stand side by side; only CLIP-G is pooled. An absent negative prompt is zeros
    if the checkpoint says so. Returns ``encoder_hidden_states`` (tokens, width), ``text_embeds``
    (pooled,) and ``time_ids`` (6,), which both prompts share.
    """
    clips = [embeddings[f"{role}{encoder}_hidden_states"][0] for encoder in ("clip_l", "clip_g")]
    hidden, pooled = np.concatenate(clips, axis=-1), embeddings[f"{role}clip_g_pooled"][0]
    if role and settings.zero_negative:
        hidden, pooled = np.zeros_like(hidden), np.zeros_like(pooled)
    return {
        "encoder_hidden_states": hidden,
        "text_embeds": pooled,
        "time_ids": np.asarray(settings.time_ids, np.float32),
    }


def easyanimate(embeddings: Mapping[str, Array], role: str, settings: Settings) -> Conditioning:
    """What EasyAnimate's transformer reads: the text, and the images that a clip continues.

    Returns ``encoder_hidden_states`` (tokens, width) and, of clips that continue images,
    ``inpaint_latents`` (mask and latent channels, frames, height, width), which both prompts share.
    """
    text = {"encoder_hidden_states": embeddings[f"{role}qwen_hidden_states"][0]}
    name = INPAINT_LATENTS.name
    return text | ({name: embeddings[name]} if name in embeddings else {})


CONDITIONING: dict[str, Callable[[Mapping[str, Array], str, Settings], Conditioning]] = {
    "sd3": sd3,
    "sdxl": sdxl,
    "sdxl_turbo": sdxl,
    "easyanimate": easyanimate,
    "easyanimate_i2v": easyanimate,
}


def shared(settings: Settings) -> Conditioning:
    """What the denoiser is told once for all rows of a call, because they have one latent shape."""
    if settings.clip is None:
        return {}
    layout = settings.clip
    cos, sin = rotary.tables(settings.latent_shape, layout.patch, layout.head_dim)
    return {"rotary_cos": cos, "rotary_sin": sin}


def slots(
    pipeline: Pipeline, embeddings: Mapping[str, Array], settings: Settings
) -> tuple[Conditioning, ...]:
    """Each row that a picture takes in a denoiser call.

    Negative and positive with guidance above 1, the positive alone without.
    """
    roles = ("negative_", "") if settings.guidance_scale > 1 else ("",)
    return tuple(CONDITIONING[pipeline.family](embeddings, role, settings) for role in roles)


def encode(
    pipeline: Pipeline,
    inputs: Mapping[str, Array],
    run: Callable[[Component, dict[str, Array]], list[Array]],
) -> dict[str, Array]:
    """Embeddings by the name that they have between the models: what the ensemble's steps do.

    ``inputs`` are those that ``prepare`` gives; ``run`` gives a component's outputs in the spec's
    order.
    """
    embeddings = {}
    for role, encoder in pipeline.encodings():
        feed = {t.name: inputs[ensemble_name(role, encoder, t)] for t in encoder.inputs}
        outputs = run(encoder, feed)
        for tensor, value in zip(encoder.outputs, outputs, strict=True):
            embeddings[ensemble_name(role, encoder, tensor)] = value
    return embeddings
