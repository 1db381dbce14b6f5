import pytest

from stepwise.description.manifest import Manifest
from stepwise.export.loading.source import open_checkpoint
from stepwise.export.repository.axis_ranges import largest_sizes
from stepwise.export.repository.layout import Target
from stepwise.families import FAMILIES

SD3, SDXL = FAMILIES["sd3"], FAMILIES["sdxl"]


@pytest.fixture
def target(families, checkpoints):
    return Target(open_checkpoint(checkpoints["sdxl"], SDXL), families, "sdxl")


def test_a_checkpoint_without_buckets_has_one_largest_size(repository, checkpoints):
    where = Target(open_checkpoint(checkpoints["sd3"], SD3), repository, "sd3")
    manifest = Manifest.read(where.folder)
    found = {c.name: largest_sizes(where, manifest, c) for c in SD3.components}
    assert found == {
        "clip_l": [{"batch": 8, "tokens": 20}],
        "clip_g": [{"batch": 8, "tokens": 20}],
        "t5": [{"batch": 8, "tokens": 20}],
        "transformer": [{"batch": 16, "height": 12, "text": 40, "width": 12}],
        "vae_decoder": [{"batch": 4, "height": 12, "width": 12}],
    }


@pytest.mark.parametrize("component", [SDXL.denoiser, SDXL.decoder], ids=lambda c: c.name)
def test_the_largest_sides_are_those_of_buckets(target, component):
    manifest = Manifest.read(target.folder)
    buckets = {(height // 4, width // 4) for height, width in manifest.buckets}
    found = [(s["height"], s["width"]) for s in largest_sizes(target, manifest, component)]
    assert set(found) <= buckets
    for height, width in buckets:
        # Exactly one contains each of the largest, so none is superfluous.
        containing = [own for own in found if height <= own[0] and width <= own[1]]
        assert containing == [(height, width)] if (height, width) in found else containing
