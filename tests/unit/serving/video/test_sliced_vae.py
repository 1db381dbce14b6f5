"""Slices and tiles of the streamed torch autoencoder, against diffusers' autoencoder."""

import copy
from functools import cache

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLMagvit

from stepwise.description.manifest import VideoLayout
from stepwise.description.vae_caches import output_name
from stepwise.export.modules.exportable import Exportable
from stepwise.export.modules.video_vae import VideoDecoder, VideoEncoder
from stepwise.video import sliced_vae

CONFIG = {
    "block_out_channels": (8, 16, 16, 24),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "scaling_factor": 0.7,
}
CHANNELS, SCALING = 16, 0.7
TILE, STRIDE = 32, 24


@cache
def autoencoder() -> AutoencoderKLMagvit:
    torch.manual_seed(0)
    return AutoencoderKLMagvit(**CONFIG).eval()


@cache
def parts() -> dict[str, Exportable]:
    """The exported modules, with the weights of ``autoencoder``."""
    whole = copy.deepcopy(autoencoder())
    return {"decoder": VideoDecoder(whole), "encoder": VideoEncoder(copy.deepcopy(autoencoder()))}


def runner(part):
    """A run function over a part of the model; it counts its calls."""
    module = parts()[part]

    def run(inputs):
        run.calls += 1
        with torch.no_grad():
            shown, *last = module(*(torch.from_numpy(value) for value in inputs.values()))
        outputs = {output_name(i): value.numpy() for i, value in enumerate(last)}
        return {**outputs, "levels" if part == "decoder" else "latents": shown.numpy()}

    run.calls = 0
    return run


def layout(**changes) -> VideoLayout:
    fields = {
        **{"frames": 4, "scale": 8, "patch": 2, "head_dim": 32, "scaling_factor": SCALING},
        **{"tile": 512, "tile_stride": 448, "reference_noise": 0.0},
        **{f"{part}_caches": module.caches for part, module in parts().items()},
    }
    return VideoLayout(**{**fields, **changes})


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
        return sliced_vae.as_frames(model.decode(1 / SCALING * given[None]).sample[0].numpy())


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_slices_match_the_video_of_diffusers(frames):
    slices = list(sliced_vae.decode(runner("decoder"), latents(frames).numpy(), layout()))
    assert [index for index, _ in slices] == [0, *range(1, 4 * frames - 3, 4)]
    assert [len(part) for _, part in slices] == [1] + [4] * (frames - 1)
    difference = np.abs(together(slices).astype(int) - due(latents(frames)).astype(int))
    # diffusers sums in another order, which can change the rounding by one level.
    print(f"{np.count_nonzero(difference)} of {difference.size} levels off, by {difference.max()}")
    assert difference.max() <= 1
    assert np.mean(difference > 0) <= 1e-3


@pytest.mark.parametrize(("height", "width"), [(4, 9), (9, 4), (10, 11), (5, 4)])
def test_tiles_are_blended_as_in_diffusers(height, width):
    given, run = latents(2, height, width), runner("decoder")
    tiled = layout(tile=TILE, tile_stride=STRIDE)
    got = together(sliced_vae.decode(run, given.numpy(), tiled))
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


def test_slices_are_decoded_lazily():
    run = runner("decoder")
    slices = sliced_vae.decode(run, latents(37).numpy(), layout())
    next(slices)
    assert run.calls == 1
