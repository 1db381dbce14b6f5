"""What a checkpoint that makes clips must be like, and what of it requests depend on."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from export.checkpoint import Checkpoint
from export.errors import CheckpointError, reason
from export.weights import read_json
from pipelines.caches import Cache, with_caches
from pipelines.manifest import ClipLayout
from pipelines.spec import INPAINT_LATENTS, Component, Pipeline

# The standard deviation of the noise that EasyAnimateInpaintPipeline adds to the images which a
# clip continues (its noise_aug_strength), if the transformer was trained with it.
REFERENCE_NOISE = 0.0563
# Options of the transformer that change what it is given, and what they are in what is served;
# those of the second kind are told of clips that continue images alone.
_PLAIN: dict[str, object] = {
    "text_embed_dim_t5": None,
    "time_position_encoding_type": "3d_rope",
    "enable_text_attention_mask": True,
}
_PLAIN_INPAINTING: dict[str, object] = {"resize_inpaint_mask_directly": True}


def served(checkpoint: Checkpoint) -> Pipeline:
    """The pipeline of a checkpoint, its autoencoder's graphs with the caches that they have.

    Raises CheckpointError if its configs are of a model that is not served. Weights are not read.
    """
    pipeline, options = checkpoint.pipeline, _PLAIN
    if pipeline.image_encoder:
        options = options | _PLAIN_INPAINTING
    for option, due in options.items():
        _check(checkpoint, option, _config(checkpoint, pipeline.denoiser).get(option, due), due)
    for option, channels in _channels(checkpoint):
        got = checkpoint.integer(pipeline.denoiser, option)
        _check(checkpoint, option, got, channels)
    caches = _caches(checkpoint)
    encoder = pipeline.image_encoder
    return replace(
        pipeline,
        decoder=with_caches(pipeline.decoder, caches[pipeline.decoder.name]),
        image_encoder=encoder and with_caches(encoder, caches[encoder.name]),
    )


def _config(checkpoint: Checkpoint, component: Component) -> dict[str, Any]:
    return read_json(checkpoint.folder / component.subfolder / "config.json")


def _channels(checkpoint: Checkpoint) -> Iterator[tuple[str, int]]:
    """What the transformer takes, by its options: latents and, of images, a mask and latents."""
    pipeline = checkpoint.pipeline
    latents = checkpoint.integer(pipeline.decoder, "latent_channels")
    told = any(tensor.name == INPAINT_LATENTS.name for tensor in pipeline.denoiser.inputs)
    yield "in_channels", latents + (1 + latents) * told
    yield "out_channels", latents


def _check(checkpoint: Checkpoint, option: str, got: object, due: object) -> None:
    if got != due:
        pipeline = checkpoint.pipeline
        raise CheckpointError(
            f"{checkpoint.folder / pipeline.denoiser.subfolder / 'config.json'}: got "
            f"{option}={got!r}, but {pipeline.family} is exported from transformers with "
            f"{option}={due!r}; EasyAnimate V5.1 and V5.1-InP have it"
        )


def _caches(checkpoint: Checkpoint) -> dict[str, tuple[Cache, ...]]:
    # What it needs takes seconds to import.
    from export.video_autoencoder import caches

    place = checkpoint.place(checkpoint.pipeline.decoder)
    try:
        return caches(_config(checkpoint, checkpoint.pipeline.decoder))
    except CheckpointError as error:
        raise CheckpointError(f"{place}: {error}") from error
    except Exception as error:  # a damaged config can make the library raise anything
        raise CheckpointError(
            f"{place}: its config.json is of no AutoencoderKLMagvit ({reason(error)}); download "
            "the checkpoint again"
        ) from error


def layout(checkpoint: Checkpoint) -> ClipLayout | None:
    """What requests for clips depend on; None for a pipeline of pictures."""
    pipeline = checkpoint.pipeline
    if not pipeline.makes_clips:
        return None
    from export.video_autoencoder import FRAMES, SCALE

    transformer = _config(checkpoint, pipeline.denoiser)
    noisy = pipeline.image_encoder and transformer.get("add_noise_in_inpaint_model", True)
    caches = _caches(checkpoint)
    tile, stride = pipeline.tile
    return ClipLayout(
        frames=FRAMES,
        scale=SCALE,
        patch=checkpoint.integer(pipeline.denoiser, "patch_size"),
        head_dim=checkpoint.integer(pipeline.denoiser, "attention_head_dim"),
        decoder_caches=caches[pipeline.decoder.name],
        encoder_caches=caches[pipeline.image_encoder.name] if pipeline.image_encoder else (),
        tile=tile,
        tile_stride=stride,
        scaling_factor=float(checkpoint.setting(pipeline.decoder, "scaling_factor")),
        reference_noise=REFERENCE_NOISE if noisy else 0.0,
    )
