"""Components and request tensors that the Stable Diffusion families share."""

from stepwise.description.spec import Component, Tensor

TOKENS = Tensor("ids", "INT64", ("batch", "tokens"))
# Filled with the setting of the same name.
CLIP_SKIP = Tensor("clip_skip", "INT64", ("batch", 1))


def clip_encoder(name: str, suffix: str, pooled: bool = True) -> Component:
    """A CLIP text encoder, in folders with this ``suffix``, optionally with a ``pooled`` output."""
    outputs = (
        Tensor("hidden_states", "FP32", ("batch", "tokens", -1)),
        Tensor("pooled", "FP32", ("batch", -1)),
    )
    return Component(
        name=name,
        subfolder=f"text_encoder{suffix}",
        tokenizer=f"tokenizer{suffix}",
        inputs=(TOKENS, CLIP_SKIP),
        outputs=outputs if pooled else outputs[:1],
        max_batch=8,
    )


VAE_DECODER = Component(
    name="vae_decoder",
    subfolder="vae",
    inputs=(Tensor("latents", "FP32", ("batch", -1, "height", "width")),),
    outputs=(Tensor("image", "UINT8", ("batch", "image_height", "image_width", 3)),),
    max_batch=4,
)

REQUEST = (
    # A cancellation has no prompt, so the pipeline itself refuses requests without one.
    Tensor("prompt", "BYTES", (1,), optional=True),
    Tensor("negative_prompt", "BYTES", (1,), optional=True),
    Tensor("steps", "INT32", (1,), optional=True),
    Tensor("guidance_scale", "FP32", (1,), optional=True),
    Tensor("sampler", "BYTES", (1,), optional=True),
    Tensor("seed", "INT64", (1,), optional=True),
    Tensor("num_images", "INT32", (1,), optional=True),
    Tensor("height", "INT32", (1,), optional=True),
    Tensor("width", "INT32", (1,), optional=True),
    Tensor("clip_skip", "INT32", (1,), optional=True),
)
