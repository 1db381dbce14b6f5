"""Ranges stored next to a plan: used only if they were made for it."""

import json
from dataclasses import replace

import pytest

from miniatures.prompts import CALIBRATION
from stepwise.export.checkpoint.folder import weights_digest
from stepwise.export.loading.source import open_checkpoint
from stepwise.export.options import Quantization
from stepwise.export.quantize import pipeline, ranges
from stepwise.export.quantize.calibration.activation_ranges import Activation, Clipping, Range
from stepwise.export.quantize.plan import Entry, Plan
from stepwise.families import FAMILIES
from tests.conftest import ROOT

PLAN = {"conv_in": Entry(16, 16), "b": Entry(4, 8, 0.5, clipping=Clipping.MSE)}
FOUND = {
    "conv_in": Activation((Range(-1.5, 2.0),), Range(-3.0, 0.0)),
    "b": Activation((Range(-0.25, 1.0), Range(0.0, 7.0)), Range(-1.0, 1.0)),
}
COMMITTED = ROOT / "miniatures" / "plans" / "sdxl_turbo_w8a8" / "plan.json"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / ranges.FILE
    path.write_text(json.dumps(ranges.rows(FOUND, PLAN, "ab12")))
    return path


def test_ranges_are_read_back_unchanged(path):
    assert ranges.read(path, PLAN, "ab12") == FOUND


@pytest.mark.parametrize(
    "plan",
    [
        {**PLAN, "b": replace(PLAN["b"], clipping=Clipping.MINMAX)},
        {**PLAN, "another": Entry(8, 8)},
    ],
)
def test_ranges_of_another_plan_are_not_used(path, plan):
    assert ranges.read(path, plan, "ab12") is None


def test_ranges_of_other_prompts_or_weights_are_not_used(path):
    assert ranges.read(path, PLAN, "cd34") is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"conv_in": 1}'])
def test_damaged_ranges_are_not_used(path, text):
    path.write_text(text)
    assert ranges.read(path, PLAN, "ab12") is None
    path.unlink()
    assert ranges.read(path, PLAN, "ab12") is None


def test_the_plan_of_the_demo_needs_no_calibration(monkeypatch):
    """If this fails, run ``make plan``."""

    def calibrated(*_):
        pytest.fail("the plan's ranges were made with other weights, prompts or libraries")

    monkeypatch.setattr(pipeline, "examine", calibrated)
    checkpoint = open_checkpoint(ROOT / "miniatures" / "sdxl_turbo", FAMILIES["sdxl_turbo"])
    wanted = Quantization(CALIBRATION, plan=COMMITTED)
    recipe = pipeline.prepare(checkpoint, wanted, "onnxruntime")
    plan = Plan.read(COMMITTED)
    assert recipe.plan == plan
    assert plan.source == weights_digest(checkpoint)
    assert recipe.activations.keys() == plan.layers.keys()
    assert {entry.weight_bits for entry in plan.layers.values()} <= {8, 16}
