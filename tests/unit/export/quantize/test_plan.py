"""Plan files: writing, reading and errors."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from stepwise.export.errors import QuantizationError
from stepwise.export.quantize.layers import Group, Layer
from stepwise.export.quantize.plan import Entry, Plan, check

PLAN = Plan(
    "miniatures/sdxl_turbo", "ab12", 7_000_000, {"conv_in": Entry(16, 16), "b": Entry(4, 8, 0.5)}
)
LAYERS = (Layer("conv_in", (8, 4, 3, 3), Group.QUALITY), Layer("b", (8, 8), Group.CONTENT))


def test_a_plan_is_read_back_unchanged(tmp_path):
    PLAN.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == PLAN


def test_each_layer_has_one_line(tmp_path):
    PLAN.write(tmp_path / "plan.json")
    lines = (tmp_path / "plan.json").read_text().splitlines()
    for name in PLAN.layers:
        (line,) = [line for line in lines if f'"{name}"' in line]
        assert "weight_bits" in line


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("weight_bits", 3, "b has weight_bits=3; allowed are 4, 7, 8, 16"),
        ("weight_bits", True, "b has weight_bits=True; allowed are 4, 7, 8, 16"),
        ("weight_bits", "8", "b has weight_bits='8'; allowed are 4, 7, 8, 16"),
        ("activation_bits", 4, "b has activation_bits=4; allowed are 8, 16"),
        ("clipping", "max", "b has clipping='max'; allowed are minmax, percentile, mse"),
        ("bits", 8, "b has 'bits'; allowed are"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, key, value, told):
    PLAN.write(tmp_path / "plan.json")
    edited = json.loads((tmp_path / "plan.json").read_text())
    edited["layers"]["b"][key] = value
    (tmp_path / "plan.json").write_text(json.dumps(edited))
    with pytest.raises(QuantizationError) as caught:
        Plan.read(tmp_path / "plan.json")
    assert told in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "{}", '{"checkpoint": "", "budget": 1, "layers": [1]}'])
def test_a_file_that_is_no_plan_is_refused(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(QuantizationError, match="is not a plan .*; make a new one"):
        Plan.read(tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (os.mkfifo, "is a FIFO where a regular file should be"),
        (Path.touch, "is empty"),
        (lambda path: path.write_text("[" * 100_000), "is nested deeper than the allowed 64 lists"),
    ],
)
def test_a_plan_that_no_program_should_read_is_named(tmp_path, make, problem):
    path = tmp_path / "plan.json"
    make(path)
    with pytest.raises(QuantizationError, match=f"plan.json {problem}.*; make a new plan"):
        Plan.read(path)


def test_a_plan_for_the_model_is_accepted():
    check(PLAN, LAYERS)


def test_a_plan_for_another_model_names_the_layers_that_differ():
    with pytest.raises(QuantizationError, match="the plan lacks 1: b; make a new plan"):
        check(replace(PLAN, layers={"conv_in": Entry(16, 16)}), LAYERS)
    with pytest.raises(QuantizationError, match="the model lacks 1: b; make a new plan"):
        check(PLAN, LAYERS[:1])
