"""The SDXL family: two text encoders, a UNet that is told where a picture comes from, 4 channels.

``sdxl`` is for guidance, negative prompts and tens of steps; ``sdxl_turbo`` for checkpoints that
were distilled to one to four steps without guidance (arXiv 2311.17042).
"""

from dataclasses import replace

from pipelines.spec import (
    SERVING,
    Component,
    Defaults,
    Limits,
    Pipeline,
    Range,
    Tensor,
    pictures,
)
from pipelines.stable_diffusion import REQUEST, VAE_DECODER, clip

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

SDXL = Pipeline(
    family="sdxl",
    diffusers_class="StableDiffusionXLPipeline",
    encoders=(clip("clip_l", "", pooled=False), clip("clip_g", "_2")),
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
    slots=16,
    side_multiple=8,
    buckets=BUCKETS,
    zero_negative=True,
)

SDXL_TURBO = replace(
    SDXL,
    family="sdxl_turbo",
    defaults=Defaults(
        steps=1, guidance_scale=0.0, sampler="euler_ancestral_trailing", negative_prompt=None
    ),
    limits=replace(SDXL.limits, steps=(1, 4)),
)
