"""EasyAnimate V5.1: one text encoder, a transformer over all frames, a causal video autoencoder.

``easyanimate`` makes videos from texts. ``easyanimate_i2v``, for the InP checkpoints, makes them
from a text, a first image and optionally a last image (arXiv 2405.18991).
"""

from collections.abc import Mapping
from dataclasses import replace

from stepwise.description.family import Conditioning, Defaults, Family, Limits, Video
from stepwise.description.fields import Array
from stepwise.description.settings import Settings
from stepwise.description.spec import (
    IMAGES,
    INPAINT_LATENTS,
    SERVING,
    Component,
    Range,
    Tensor,
    pictures,
)
from stepwise.families import easyanimate_rope
from stepwise.families.stable_diffusion import TOKENS

# 1 if a slice begins a video, else 0. The inputs after it are the caches of the causal
# convolutions, as many as the checkpoint needs (description/vae_caches.py).
FIRST = Tensor("first", "INT32", (1,))

_LATENTS = Tensor("latents", "FP32", ("batch", -1, "frames", "height", "width"))
_VIDEO = Video(tile=512, tile_stride=448)


def _conditioning(embeddings: Mapping[str, Array], role: str, settings: Settings) -> Conditioning:
    """The conditioning of EasyAnimate's transformer: text, and the images that a video continues.

    Returns ``encoder_hidden_states`` (tokens, width) and, for videos that continue images,
    ``inpaint_latents`` (mask and latent channels, frames, height, width), which both prompts share.
    """
    text = {"encoder_hidden_states": embeddings[f"{role}qwen_hidden_states"][0]}
    name = INPAINT_LATENTS.name
    return text | ({name: embeddings[name]} if name in embeddings else {})


def _shared(settings: Settings) -> Conditioning:
    """Rotary tables, (patches, head width) each. They depend only on the latent shape."""
    layout = settings.video
    assert layout is not None
    cos, sin = easyanimate_rope.tables(settings.latent_shape, layout.patch, layout.head_dim)
    return {"rotary_cos": cos, "rotary_sin": sin}


EASYANIMATE = Family(
    name="easyanimate",
    diffusers_class="EasyAnimatePipeline",
    encoders=(
        Component(
            name="qwen",
            subfolder="text_encoder",
            tokenizer="tokenizer",
            inputs=(TOKENS, Tensor("attention_mask", "INT64", ("batch", "tokens"))),
            outputs=(Tensor("hidden_states", "FP32", ("batch", "tokens", -1)),),
            max_batch=8,
            chat=True,
        ),
    ),
    denoiser=Component(
        name="transformer",
        subfolder="transformer",
        inputs=(
            _LATENTS,
            Tensor("timestep", "FP32", ("batch",)),
            Tensor("encoder_hidden_states", "FP32", ("batch", "text", -1)),
            Tensor("rotary_cos", "FP32", ("patches", -1)),
            Tensor("rotary_sin", "FP32", ("patches", -1)),
        ),
        outputs=(replace(_LATENTS, name="prediction"),),
    ),
    decoder=Component(
        name="vae_decoder",
        subfolder="vae",
        inputs=(Tensor("latents", "FP32", (1, -1, "slice", "height", "width")), FIRST),
        outputs=(Tensor("levels", "FP32", (1, 3, "4*slice", "8*height", "8*width")),),
    ),
    request=(
        # A cancellation has no prompt, so the pipeline itself refuses requests without one.
        Tensor("prompt", "BYTES", (1,), optional=True),
        Tensor("negative_prompt", "BYTES", (1,), optional=True),
        Tensor("steps", "INT32", (1,), optional=True),
        Tensor("guidance_scale", "FP32", (1,), optional=True),
        Tensor("guidance_rescale", "FP32", (1,), optional=True),
        Tensor("sampler", "BYTES", (1,), optional=True),
        Tensor("seed", "INT64", (1,), optional=True),
        Tensor("frames", "INT32", (1,), optional=True),
        Tensor("height", "INT32", (1,), optional=True),
        Tensor("width", "INT32", (1,), optional=True),
        *SERVING,
    ),
    response=pictures(Tensor("video", "UINT8", (-1, -1, -1, 3))),
    defaults=Defaults(steps=50, guidance_scale=5.0, sampler="euler", num_images=None, frames=49),
    limits=Limits(
        steps=(1, 100),
        guidance_scale=(0.0, 30.0),
        num_images=None,
        side_factors=(0.5, 2.2),
        prompt_bytes=1 << 20,
        # A full-size video takes minutes on a GPU, and each video ahead of it takes as long.
        deadline_ms=(1, 24 * 60 * 60 * 1000),
        frames=(1, 145),
        guidance_rescale=(0.0, 1.0),
    ),
    ranges={
        "batch": Range(1, 2, 4),
        "tokens": Range(1, 256, 256),
        "text": Range(1, 256, 256),
        "frames": Range(1, 13, 37),
        # The server decodes one latent frame at a time.
        "slice": Range(1, 1, 1),
    },
    max_rows=4,
    conditioning=_conditioning,
    shared=_shared,
    native=("sample_height", "sample_width"),
    capacity=32,
    schedule={"mu": 1.0},
    video=_VIDEO,
)

EASYANIMATE_I2V = replace(
    EASYANIMATE,
    name="easyanimate_i2v",
    diffusers_class="EasyAnimateInpaintPipeline",
    denoiser=replace(
        EASYANIMATE.denoiser,
        inputs=(
            *EASYANIMATE.denoiser.inputs,
            replace(_LATENTS, name="inpaint_latents"),
        ),
    ),
    video=replace(
        _VIDEO,
        image_encoder=Component(
            name="vae_encoder",
            subfolder="vae",
            inputs=(Tensor("levels", "FP32", (1, 3, 4, "8*height", "8*width")), FIRST),
            outputs=(Tensor("latents", "FP32", (1, -1, 1, "height", "width")),),
        ),
        images=IMAGES,
    ),
    request=(*EASYANIMATE.request, *IMAGES),
)
