"""Stable Diffusion 3: three text encoders, a multimodal transformer, 16 latent channels."""

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
from pipelines.stable_diffusion import REQUEST, TOKENS, VAE_DECODER, clip

SD3 = Pipeline(
    family="sd3",
    diffusers_class="StableDiffusion3Pipeline",
    encoders=(
        clip("clip_l", ""),
        clip("clip_g", "_2"),
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
    slots=16,
)
