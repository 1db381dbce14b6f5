"""SDXL checkpoints: sizes, and settings read from their configs."""

import shutil
from pathlib import Path

import pytest

from stepwise.description.manifest import Sides
from stepwise.export.loading.source import open_checkpoint
from stepwise.families import FAMILIES
from tests.unit.export.conftest import MINIATURE, edit

SD3, SDXL = FAMILIES["sd3"], FAMILIES["sdxl"]


@pytest.fixture
def sdxl(checkpoints, tmp_path):
    """A copy of the SDXL checkpoint that tests may change."""
    return Path(shutil.copytree(checkpoints["sdxl"], tmp_path / "sdxl"))


def test_a_checkpoint_of_1024_pixels_has_the_original_buckets(sdxl):
    edit(sdxl / "unet" / "config.json", lambda fields: fields.update(sample_size=256))
    checkpoint = open_checkpoint(sdxl, SDXL)
    assert checkpoint.sides == Sides(native=1024, minimum=640, maximum=1632, multiple=8)
    assert checkpoint.buckets == SDXL.buckets
    assert len(set(SDXL.buckets)) == 15


def test_a_smaller_checkpoint_has_smaller_and_unique_buckets(sdxl):
    checkpoint = open_checkpoint(sdxl, SDXL)
    sides = checkpoint.sides
    assert sides == Sides(native=64, minimum=40, maximum=96, multiple=8)
    assert checkpoint.buckets[0] == (80, 48)
    assert (64, 64) in checkpoint.buckets
    assert len(set(checkpoint.buckets)) == len(checkpoint.buckets)
    for side in (side for bucket in checkpoint.buckets for side in bucket):
        assert side % 8 == 0
        assert sides.minimum <= side <= sides.maximum
    assert open_checkpoint(MINIATURE, SD3).buckets == ()


@pytest.mark.parametrize(("said", "zero"), [(True, True), (False, False), (None, True)])
def test_the_index_sets_whether_a_missing_negative_prompt_is_zeros(sdxl, said, zero):
    def change(fields):
        fields.update(force_zeros_for_empty_prompt=said)
        if said is None:
            del fields["force_zeros_for_empty_prompt"]

    edit(sdxl / "model_index.json", change)
    assert open_checkpoint(sdxl, SDXL).zero_negative is zero


def test_the_encoder_with_the_fewest_layers_limits_clip_skip(sdxl):
    edit(sdxl / "text_encoder" / "config.json", lambda fields: fields.update(num_hidden_layers=2))
    assert open_checkpoint(sdxl, SDXL).largest_clip_skip == 1
