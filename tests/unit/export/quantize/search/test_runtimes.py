"""Sizes of quantized layers, and budgets by name."""

import json

import pytest
import torch
from diffusers import UNet2DConditionModel

from stepwise.export.errors import QuantizationError
from stepwise.export.quantize.layers import Group, Layer, find
from stepwise.export.quantize.search.runtimes import BUDGETS, RUNTIMES, Limit, limit
from tests.conftest import ROOT

LINEAR = Layer("linear", (10, 128), Group.QUALITY)
CONVOLUTION = Layer("convolution", (10, 100, 3, 3), Group.QUALITY)


@pytest.fixture(scope="module")
def sdxl():
    config = json.loads(
        (ROOT / "export/stepwise/export/families/data/sdxl/unet/config.json").read_text()
    )
    with torch.device("meta"):
        return find(UNet2DConditionModel.from_config(config))


def test_sizes_are_codes_and_scales():
    runtime = RUNTIMES["onnxruntime"]
    assert runtime.size(LINEAR, 16) == 2 * 1280
    assert runtime.size(LINEAR, 8) == 1280 + 10 * 4
    assert runtime.size(LINEAR, 4) == 10 * 2 * (32 + 2)
    assert runtime.size(CONVOLUTION, 8) == 9000 + 10 * 4
    halves = Layer("split", (10, 100, 3, 3), Group.QUALITY, split=60)
    assert runtime.size(halves, 8) == 9000 + 2 * 10 * 4


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_four_bits_are_only_for_wide_linear_layers(runtime):
    assert 4 not in RUNTIMES[runtime].bits(CONVOLUTION)
    assert 4 in RUNTIMES[runtime].bits(LINEAR)
    assert 4 not in RUNTIMES[runtime].bits(Layer("narrow", (10, 100), Group.QUALITY)), "blocks of 4"


@pytest.mark.parametrize(("name", "floor"), [("w8a8", 1.95), ("w5a8", 2.7), ("w4a8", 3.0)])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_budgets_make_sdxl_small_enough(sdxl, runtime, name, floor):
    used = RUNTIMES[runtime]
    whole = sum(used.size(layer, 16) for layer in sdxl)
    times = whole / limit(name, sdxl, used).size
    print(f"{runtime} {name}: {times:.2f} times smaller than FP16, at least {floor}")
    assert times >= floor


def test_a_budget_may_be_bytes(sdxl):
    assert limit("1000", sdxl, RUNTIMES["tensorrt"]) == Limit(1000, frozenset({4, 8, 16}))


@pytest.mark.parametrize("text", ["w3a8", "W8A8", "", "-5", "0", "1.5", "10MB"])
def test_other_budgets_are_refused(text):
    with pytest.raises(QuantizationError, match=f"got the budget '{text}'; allowed are w8a8"):
        limit(text, [LINEAR], RUNTIMES["tensorrt"])


def test_budgets_are_in_descending_order_of_size(sdxl):
    sizes = [limit(name, sdxl, RUNTIMES["onnxruntime"]).size for name in BUDGETS]
    assert sizes == sorted(sizes, reverse=True)
