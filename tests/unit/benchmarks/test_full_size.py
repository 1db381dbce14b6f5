"""The full-size benchmark, with transformers of true width and few layers."""

import shutil

import pytest
from diffusers import SD3Transformer2DModel

from benchmarks.full_size import quantized
from benchmarks.full_size.component import FACTOR, Job, exported, measure, passed
from miniatures import full
from tests.support.paths import ROOT

MINIATURE = ROOT / "miniatures" / "sd3"


def job(folder, layers):
    """The miniature with a transformer of true width, so that activations have true sizes."""
    checkpoint = folder / "checkpoint"
    shutil.copytree(MINIATURE, checkpoint, ignore=shutil.ignore_patterns("transformer"))
    config = {**full.SD3["transformer"], "num_layers": layers}
    full.write_component(config, SD3Transformer2DModel, checkpoint / "transformer")
    return Job("sd3", "transformer", checkpoint, 256, folder / "scratch")


def test_weights_are_only_once_in_memory(tmp_path):
    """Extra layers add only their weights to peak memory, because activations are freed."""
    small = exported(job(tmp_path / "small", 1))
    figures = measure(job(tmp_path / "large", 3), engine=False)
    large = figures["export"]
    assert passed(figures)
    assert not list(tmp_path.glob("*/scratch"))
    grown = large["peak"] - small["peak"]
    weights = large["weights"] - small["weights"]
    print(f"{grown / 1e6:.0f} MB, {FACTOR * weights / 1e6:.0f}")
    assert weights > 300e6
    assert grown <= FACTOR * weights


@pytest.mark.parametrize(
    ("times", "good"), [((1.95, 3.0), True), ((1.94, 3.0), False), ((1.95, 2.99), False)]
)
def test_quantized_files_must_be_small(times, good):
    names = ("w8a8 in blocks of 64", "w4a8 in blocks of 32")
    figures = {"float": {"bytes": 1}}
    for name, ratio in zip(names, times, strict=True):
        figures |= {name: {"times_smaller_than_fp16": ratio}, f"{name} step": {"finite": True}}
    assert quantized.passed(figures) == good
