"""TensorRT engines of the video families, built without a GPU."""

import functools
import shutil

import pytest

from stepwise.export.loading.source import open_checkpoint
from stepwise.export.repository.layout import Target
from stepwise.export.tensorrt.build import build_engines, table
from stepwise.families import FAMILIES
from tests.conftest import VIDEOS, further
from tests.unit.export.tensorrt.test_build import RTX


@pytest.fixture(scope="module")
def repositories(request, tmp_path_factory):
    """Gives a copy of both families' repository in a precision, to build engines in."""
    others = shutil.ignore_patterns("sd*")

    @functools.cache
    def copied(precision):
        source = request.getfixturevalue({"fp32": "videos", "fp16": "half_videos"}[precision])
        return shutil.copytree(source, tmp_path_factory.mktemp(precision) / "r", ignore=others)

    return copied


# One capability is enough in float32: the other one supports the same graphs.
@pytest.mark.parametrize(
    ("precision", "capability"), [("fp16", "8.9"), further("fp16", "8.0"), further("fp32", "8.9")]
)
@pytest.mark.parametrize("family", VIDEOS)
def test_every_component_of_a_video_builds(
    repositories, checkpoints, family, precision, capability
):
    repository = repositories(precision)
    checkpoint = open_checkpoint(checkpoints[family], FAMILIES[family])
    engines = build_engines(Target(checkpoint, repository, family, precision), RTX, capability)
    print(table(engines))
    assert [engine.component for engine in engines] == [
        component.name for component in checkpoint.family.components
    ]
    for engine in engines:
        assert engine.compute_capability == capability
        assert engine.all_layers > 10
        assert (engine.half_layers > 5) == (precision == "fp16"), engine.layers
        # Only the transformer has dynamic frames: a slice of the decoder is one latent frame.
        if engine.component == "vae_decoder":
            (profile,) = engine.profiles
            assert {shape[2] for shape in profile["latents"].values()} == {1}
