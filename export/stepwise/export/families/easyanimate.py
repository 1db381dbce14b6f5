"""Exporter settings of EasyAnimate V5.1: supported checkpoints and the layout of their videos."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from stepwise.description.family import Family
from stepwise.description.manifest import VideoLayout
from stepwise.description.spec import Component
from stepwise.description.vae_caches import Cache, with_caches
from stepwise.export.checkpoint.folder import Checkpoint
from stepwise.export.checkpoint.safetensors_files import read_json
from stepwise.export.errors import CheckpointError, reason
from stepwise.export.families.base import EVERYWHERE, FamilyExport, KeepInFp32

# Standard deviation of the noise that EasyAnimateInpaintPipeline adds to the images that a video
# continues (its noise_aug_strength), if the transformer was trained with it.
REFERENCE_NOISE = 0.0563
# Options that change the transformer's inputs, with the supported values. The second table applies
# only to models of videos that continue images.
_PLAIN: dict[str, object] = {
    "text_embed_dim_t5": None,
    "time_position_encoding_type": "3d_rope",
    "enable_text_attention_mask": True,
}
_PLAIN_INPAINTING: dict[str, object] = {"resize_inpaint_mask_directly": True}


def served(checkpoint: Checkpoint) -> Family:
    """The family of a checkpoint, with the caches of its autoencoder's graphs.

    Raises CheckpointError if its configs describe an unsupported model. Weights are not read.
    """
    family, options = checkpoint.family, _PLAIN
    if family.image_encoder:
        options = options | _PLAIN_INPAINTING
    for option, due in options.items():
        _check(checkpoint, option, _config(checkpoint, family.denoiser).get(option, due), due)
    for option, channels in _channels(checkpoint):
        got = checkpoint.integer(family.denoiser, option)
        _check(checkpoint, option, got, channels)
    caches = _caches(checkpoint)
    encoder = family.image_encoder
    video = family.video
    assert video is not None
    return replace(
        family,
        decoder=with_caches(family.decoder, caches[family.decoder.name]),
        video=replace(video, image_encoder=encoder and with_caches(encoder, caches[encoder.name])),
    )


def _config(checkpoint: Checkpoint, component: Component) -> dict[str, Any]:
    return read_json(checkpoint.folder / component.subfolder / "config.json")


def _channels(checkpoint: Checkpoint) -> Iterator[tuple[str, int]]:
    """The required channels, by the transformer's options. Images add a mask and their latents."""
    family = checkpoint.family
    latents = checkpoint.integer(family.decoder, "latent_channels")
    images = family.image_encoder is not None
    yield "in_channels", latents + (1 + latents) * images
    yield "out_channels", latents


def _check(checkpoint: Checkpoint, option: str, got: object, due: object) -> None:
    if got != due:
        family = checkpoint.family
        raise CheckpointError(
            f"{checkpoint.folder / family.denoiser.subfolder / 'config.json'}: got "
            f"{option}={got!r}, but {family.name} is exported from transformers with "
            f"{option}={due!r}; EasyAnimate V5.1 and V5.1-InP have it"
        )


def _caches(checkpoint: Checkpoint) -> dict[str, tuple[Cache, ...]]:
    # This import takes seconds.
    from stepwise.export.modules.video_vae import caches

    place = checkpoint.place(checkpoint.family.decoder)
    try:
        return caches(_config(checkpoint, checkpoint.family.decoder))
    except CheckpointError as error:
        raise CheckpointError(f"{place}: {error}") from error
    except Exception as error:  # a damaged config can make the library raise anything
        raise CheckpointError(
            f"{place}: its config.json does not describe an AutoencoderKLMagvit ({reason(error)}); "
            "download the checkpoint again"
        ) from error


def video_layout(checkpoint: Checkpoint) -> VideoLayout:
    """The layout of videos, which requests depend on."""
    family = checkpoint.family
    from stepwise.export.modules.video_vae import FRAMES, SCALE

    transformer = _config(checkpoint, family.denoiser)
    noisy = family.image_encoder and transformer.get("add_noise_in_inpaint_model", True)
    caches = _caches(checkpoint)
    video = family.video
    assert video is not None
    return VideoLayout(
        frames=FRAMES,
        scale=SCALE,
        patch=checkpoint.integer(family.denoiser, "patch_size"),
        head_dim=checkpoint.integer(family.denoiser, "attention_head_dim"),
        decoder_caches=caches[family.decoder.name],
        encoder_caches=caches[family.image_encoder.name] if family.image_encoder else (),
        tile=video.tile,
        tile_stride=video.tile_stride,
        scaling_factor=float(checkpoint.setting(family.decoder, "scaling_factor")),
        reference_noise=REFERENCE_NOISE if noisy else 0.0,
    )


# The autoencoder's residual stream, and the nodes that read it before it is normalized.
_VAE = (
    *EVERYWHERE,
    KeepInFp32(""),
    KeepInFp32("*.norm?"),
    KeepInFp32("*.conv_norm_out"),
    KeepInFp32("*.convs.?", ("Add", "Div")),
    KeepInFp32("*.shortcut"),
    KeepInFp32("*.upsampler*"),
    KeepInFp32("*.downsampler*"),
)

EASYANIMATE = FamilyExport(
    keep_in_fp32={
        # A model like Llama. A few values of its residual stream, and of the layers that add to it,
        # reach tens of thousands; biases make its attention scores overflow float16.
        "qwen": (
            *EVERYWHERE,
            KeepInFp32("", ("Where",)),
            KeepInFp32("model.rotary_emb"),
            KeepInFp32("*.self_attn", ("Add", "MatMul", "Mul")),
            KeepInFp32("*.mlp", ("Mul",)),
            KeepInFp32("*.mlp.down_proj"),
            KeepInFp32("model.layers.?", ("Add",)),
            KeepInFp32("model.layers.??", ("Add",)),
        ),
        "transformer": (
            *EVERYWHERE,
            # Timesteps reach 1000, where float16 has steps of 0.5.
            KeepInFp32("model.time_proj"),
            # An RMSNorm of texts.
            KeepInFp32("model.text_proj.0"),
            KeepInFp32("*.net.0", ("Add", "Mul", "Pow", "Tanh")),
        ),
        "vae_decoder": _VAE,
        "vae_encoder": _VAE,
    },
    served=served,
    video_layout=video_layout,
)
