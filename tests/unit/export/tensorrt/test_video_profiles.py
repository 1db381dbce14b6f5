"""Engines of video components: their profiles, and the largest sizes that decoders get."""

from dataclasses import replace

import numpy as np
import pytest

from stepwise.description.axis_limits import problem
from stepwise.description.manifest import Manifest, Sides
from stepwise.export.loading.source import open_checkpoint
from stepwise.export.repository.axis_ranges import largest_sizes
from stepwise.export.repository.layout import Target
from stepwise.export.tensorrt.profiles import Profile, profiles
from stepwise.families.easyanimate import EASYANIMATE, EASYANIMATE_I2V
from stepwise.video import sliced_vae


def test_profiles_cover_all_allowed_videos(videos, checkpoints):
    checkpoint = open_checkpoint(checkpoints["easyanimate_i2v"], EASYANIMATE_I2V)
    where = Target(checkpoint, videos, "easyanimate_i2v")
    manifest, pipeline = Manifest.read(where.folder), checkpoint.family
    ((text,), (encoder,), (denoiser,), (decoder,)) = (
        profiles(where, manifest, component) for component in pipeline.components
    )
    assert set(text.values()) == {Profile((1, 256), (2, 256), (8, 256))}
    assert denoiser["latents"] == Profile((1, 16, 1, 4, 4), (2, 16, 13, 6, 6), (4, 16, 37, 12, 12))
    assert denoiser["inpaint_latents"].maximum == (4, 17, 37, 12, 12)
    assert denoiser["rotary_cos"] == Profile((4, 32), (117, 32), (1332, 32))
    assert encoder["levels"] == Profile((1, 3, 4, 32, 32), (1, 3, 4, 48, 48), (1, 3, 4, 96, 96))
    # Previews have a quarter of the side; a slice is one latent frame.
    assert decoder["latents"] == Profile((1, 16, 1, 1, 1), (1, 16, 1, 6, 6), (1, 16, 1, 12, 12))
    assert decoder["cache_22"].maximum == (1, 16, 2, 96, 96)
    assert decoder["first"] == Profile((1,), (1,), (1,))


def test_decoders_are_built_for_tiles(videos, checkpoints):
    checkpoint = open_checkpoint(checkpoints["easyanimate_i2v"], EASYANIMATE_I2V)
    where = Target(checkpoint, videos, "easyanimate_i2v")
    manifest = Manifest.read(where.folder)
    manifest = replace(manifest, sides=Sides(480, 240, 1440, 16), size=(480, 720))
    for component in (checkpoint.family.image_encoder, checkpoint.family.decoder):
        (found,) = profiles(where, manifest, component)
        scale = 8 if component.name == "vae_encoder" else 1
        ends = found[component.inputs[0].name]
        # A partial tile at the edge has at least 16 pixels, a full tile 512.
        assert ends.minimum[-1] == 2 * scale
        assert ends.usual[-1] == 60 * scale
        assert ends.maximum[-1] == 64 * scale


@pytest.mark.parametrize("sides", [(1440, 1440), (240, 1440), (512, 512)])
def test_limits_of_decoders_are_those_of_tiles(videos, checkpoints, sides):
    checkpoint = open_checkpoint(checkpoints["easyanimate"], EASYANIMATE)
    where = Target(checkpoint, videos, "easyanimate")
    manifest = replace(Manifest.read(where.folder), sides=Sides(480, 240, 1440, 16))
    decoder, seen = checkpoint.family.decoder, []
    largest = largest_sizes(where, manifest, decoder)
    assert largest == [{"height": 64, "slice": 1, "width": 64}]
    dims = {tensor.name: tensor.dims for tensor in decoder.inputs}

    def run(inputs):
        shapes = {name: value.shape for name, value in inputs.items()}
        assert problem(dims, shapes, largest) is None
        seen.append(shapes["latents"][3:])
        height, width = (8 * side for side in seen[-1])
        caches = {name.replace("cache", "next_cache"): value for name, value in inputs.items()}
        return {**caches, "levels": np.zeros((1, 3, 4, height, width), np.float32)}

    latents = np.zeros((16, 2, *(side // 8 for side in sides)), np.float32)
    for _ in sliced_vae.decode(run, latents, manifest.video):
        pass
    assert max(max(each) for each in seen) == 64
