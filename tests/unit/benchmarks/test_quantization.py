"""The planted outlier changes no picture, and the results table reports failures."""

import copy

import numpy as np
import pytest
from PIL import Image

from benchmarks.quantization import engines, image_grid
from benchmarks.quantization.figures import IDENTICAL
from benchmarks.quantization.outlier_token import FACTOR, plant
from benchmarks.quantization.table import failures, slower
from benchmarks.quantization.variants import FP32, STOCK, WHOLE
from miniatures import prompts
from stepwise.export.loading.source import open_checkpoint
from stepwise.export.preflight.smoke_test import Drawing
from stepwise.export.quantize.calibration.sampling import open_study
from stepwise.export.quantize.search.metrics import psnr
from stepwise.families import FAMILIES
from tests.conftest import ROOT

# Least PSNR of unrounded levels.
FLOOR_DB = 60.0
GOOD = {"right_percent": 99.0, "psnr_db": 45.0}
ROWS = {
    FP32: {
        steps: {"right_percent": 99.5, "psnr_db": IDENTICAL} for steps in ("4_steps", "1_steps")
    },
    WHOLE: {steps: dict(GOOD) for steps in ("4_steps", "1_steps")},
    "MixDQ W4A8": {steps: {**GOOD, "right_percent": 97.0} for steps in ("4_steps", "1_steps")},
    "naive min-max W8A8": {steps: {**GOOD, "psnr_db": 40.0} for steps in ("4_steps", "1_steps")},
}


def test_an_outlier_changes_the_first_token_but_no_picture():
    checkpoint = open_checkpoint(ROOT / "miniatures" / "sdxl_turbo", FAMILIES["sdxl_turbo"])
    captions = tuple(prompt.scene.caption for prompt in prompts.load()[:3])
    study = open_study(checkpoint, Drawing(captions, 4, 0.0))
    before, texts = study.pictures(), study.texts
    changed = plant(study, texts)
    found = psnr(changed.pictures(), before)
    print(f"{found:.1f} dB, {FLOOR_DB}")
    assert found >= FLOOR_DB
    first, others = changed.texts[:, 0], changed.texts[:, 1:]
    assert np.array_equal(others, texts[:, 1:])
    assert np.abs(first).max() >= 0.9 * FACTOR * np.abs(others).max()
    assert (first == first[0]).all()


def test_good_rows_have_no_failures():
    assert failures(ROWS) == []


@pytest.mark.parametrize(
    ("label", "figures", "told"),
    [
        (WHOLE, {"right_percent": 98.0}, "MixDQ W8A8 loses 1.50 points in 1_steps, 1 are allowed"),
        ("MixDQ W4A8", {"right_percent": 96.0}, "MixDQ W4A8 loses 3.50 points in 1_steps"),
        ("naive min-max W8A8", {"psnr_db": 45.0}, "naive min-max W8A8 has 45.0 dB in 1_steps"),
    ],
)
def test_rows_that_miss_a_limit_are_reported(label, figures, told):
    rows = copy.deepcopy(ROWS)
    rows[label]["1_steps"] |= figures
    (found,) = failures(rows)
    assert found.startswith(told)


@pytest.mark.parametrize(("times", "told"), [(1.2, []), (1.1, ["1.1 times as fast", "1.1 times"])])
def test_servers_that_are_not_faster_are_reported(times, told):
    figures = {WHOLE: {"times_as_fast": times}, STOCK: {"times_as_fast": 1.1}}
    found = slower({"1 together": figures})
    assert len(found) == bool(told)
    assert all(part in found[0] for part in told)


def test_engines_with_float_kernels_are_reported():
    found = engines.failures({"w8a8 SM80": {"as_planned": 0.94}, "w8a8 SM89": {"as_planned": 0.95}})
    assert found == ["w8a8 SM80: 94.0% of its layers are as planned, need 95%"]


def test_the_grid_has_a_row_for_each_variant(tmp_path):
    levels = np.zeros((30, 3, 64, 64), np.uint8)
    levels[-1] = 255
    image_grid.write({"one": levels, "two": levels}, prompts.load()[:30], tmp_path / "grid.png")
    sheet = np.asarray(Image.open(tmp_path / "grid.png"))
    assert sheet.shape[0] == 2 * 66
    assert (sheet[10, -10] == 255).all()
    assert (sheet[10, -80] == 0).all()
