"""Slices and tiles, over the streamed autoencoder in torch, against diffusers' own."""

from functools import cache

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLMagvit

from export.magvit import Stream, streamed
from pipelines import clips
from pipelines.caches import Cache, input_name, output_name
from pipelines.manifest import ClipLayout

CONFIG = {"block_out_channels": (8, 16, 16, 24), "layers_per_block": 1, "norm_num_groups": 4}
CHANNELS = 16
TILE, STRIDE = 32, 24


@cache
def autoencoder() -> AutoencoderKLMagvit:
    torch.manual_seed(0)
    return AutoencoderKLMagvit(**CONFIG).eval()


@cache
def parts() -> tuple[AutoencoderKLMagvit, Stream, Stream]:
    torch.manual_seed(0)
    model = AutoencoderKLMagvit(**CONFIG).eval()
    return model, *streamed(model)


def runner(stream, call):
    """``clips.Run`` over a part of the model; the number of calls is counted."""

    def run(inputs):
        run.calls += 1
        seen = (torch.from_numpy(inputs[input_name(i)]) for i in range(len(run.caches)))
        with torch.no_grad():
            stream.begin(torch.from_numpy(inputs["first"]).bool(), tuple(seen))
            outputs = call(inputs)
        last = {output_name(i): value.numpy() for i, value in enumerate(stream.last)}
        return {**outputs, **last}

    run.calls = 0
    return run


def caches(part) -> tuple[Cache, ...]:
    """Those of a part, whose sides double or halve on the way."""
    found, scale = [], 1 if part is parts()[0].decoder else 8
    for name, module in part.named_modules():
        if type(module).__name__ != "StreamedConv3d":
            continue
        if "upsampler" in name:
            scale *= 2
        found.append(Cache(module.in_channels, module.memory, scale))
        if "downsampler" in name:
            # It pads its input by a row and a column on its own.
            scale //= 2
    return tuple(found)


def layout(**changes) -> ClipLayout:
    fields = {
        **{"frames": 4, "scale": 8, "patch": 2, "head_dim": 32, "scaling_factor": 1.0},
        **{"tile": 512, "tile_stride": 448, "reference_noise": 0.0},
        "decoder_caches": caches(parts()[0].decoder),
        "encoder_caches": (),
    }
    return ClipLayout(**{**fields, **changes})


def decoder():
    model, _, stream = parts()

    def call(inputs):
        latents = torch.from_numpy(inputs["latents"])
        return {"levels": model.decoder(model.post_quant_conv(latents)).numpy()}

    run = runner(stream, call)
    run.caches = layout().decoder_caches
    return run


def latents(frames, height=6, width=6):
    generator = torch.Generator().manual_seed(frames)
    return torch.randn(CHANNELS, frames, height, width, generator=generator)


def together(slices):
    return np.concatenate([frames for _, frames in slices])


def due(given, **tiling):
    """The frames that diffusers decodes."""
    model = autoencoder()
    model.use_tiling = False
    if tiling:
        model.enable_tiling(**tiling)
    with torch.no_grad():
        return clips.as_frames(model.decode(given[None]).sample[0].numpy())


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_slices_are_the_clip_that_diffusers_decodes(frames):
    slices = list(clips.decode(decoder(), latents(frames).numpy(), layout()))
    assert [index for index, _ in slices] == [0, *range(1, 4 * frames - 3, 4)]
    assert [len(part) for _, part in slices] == [1] + [4] * (frames - 1)
    assert np.array_equal(together(slices), due(latents(frames)))


@pytest.mark.parametrize(("height", "width"), [(4, 9), (9, 4), (10, 11), (5, 4)])
def test_tiles_are_blended_as_diffusers_does(height, width):
    given, run = latents(2, height, width), decoder()
    tiled = layout(tile=TILE, tile_stride=STRIDE)
    got = together(clips.decode(run, given.numpy(), tiled))
    expected = due(
        given,
        **{f"tile_sample_min_{side}": TILE for side in ("height", "width")},
        **{f"tile_sample_stride_{side}": STRIDE for side in ("height", "width")},
    )
    difference = np.abs(got.astype(int) - expected.astype(int))
    print(f"{run.calls} calls; at most {difference.max()} levels off, {difference.mean():.1e} mean")
    assert run.calls == 2 * -(-height // 3) * -(-width // 3)
    assert difference.max() <= 1
    assert not np.array_equal(got, due(given)), "tiles must have mattered"


def test_a_clip_is_decoded_while_it_is_read():
    run = decoder()
    slices = clips.decode(run, latents(37).numpy(), layout())
    next(slices)
    assert run.calls == 1
