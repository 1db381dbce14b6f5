"""Plans for two layers of the miniature from artificial scores."""

from dataclasses import replace

import pytest

from stepwise.export.errors import QuantizationError
from stepwise.export.quantize.calibration.activation_ranges import Clipping
from stepwise.export.quantize.calibration.bos_token import first_token
from stepwise.export.quantize.calibration.calibrate import calibrate
from stepwise.export.quantize.plan import Entry
from stepwise.export.quantize.search.choose import choose, measured
from stepwise.export.quantize.search.fake_quant import quantized
from stepwise.export.quantize.search.metrics import psnr
from stepwise.export.quantize.search.runtimes import RUNTIMES, Limit
from stepwise.export.quantize.search.sensitivity import trials

RUNTIME = RUNTIMES["onnxruntime"]
CONV, LINEAR = NAMES = ("conv_in", "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.2")


@pytest.fixture(scope="module")
def few(study):
    return replace(study, requests=study.requests[:2])


@pytest.fixture(scope="module")
def layers(few):
    return [layer for layer in few.layers if layer.name in NAMES]


@pytest.fixture(scope="module")
def found(few, tmp_path_factory):
    recording = calibrate(few, few.layers, tmp_path_factory.mktemp("calibration"))
    return recording, first_token(few.unet, few.layers, few.texts)


@pytest.fixture
def scores(layers):
    """Scores in which only percentile clipping of the convolution is better than the rest."""
    made = {}
    for trial in trials(layers, RUNTIME):
        made[trial] = 40.0 if trial.layer == CONV else 0.99
        if trial.layer == CONV and trial.clipping is Clipping.PERCENTILE:
            made[trial] = 41.0
    return made


def size(layers, plan):
    return sum(RUNTIME.size(layer, plan[layer.name].weight_bits) for layer in layers)


def plan_for(few, layers, scores, found, budget, protected=(), bits=(4, 8, 16)):
    limit = Limit(budget, frozenset(bits))
    return choose(few, layers, scores, found, RUNTIME, limit, protected)


def test_a_budget_for_everything_keeps_all_layers_in_float(few, layers, scores, found):
    plan = plan_for(few, layers, scores, found, 10**9)
    assert plan == {name: Entry(16, 16) for name in NAMES}


def test_the_clipping_with_the_best_score_is_chosen_and_recorded(few, layers, scores, found):
    least = RUNTIME.size(layers[0], 8) + RUNTIME.size(layers[1], 4)
    plan = plan_for(few, layers, scores, found, least)
    assert plan[CONV] == Entry(8, 8, 40.0, 41.0, Clipping.PERCENTILE)
    assert size(layers, plan) <= least


def test_the_allocation_with_the_best_pictures_is_chosen(few, layers, scores, found):
    """The budget leaves one of two layers in float; pictures decide which one."""
    sizes = {layer.name: RUNTIME.size(layer, 16) for layer in layers}
    small = {
        layer.name: min(RUNTIME.size(layer, bits) for bits in RUNTIME.bits(layer))
        for layer in layers
    }
    budget = max(sizes[CONV] + small[LINEAR], sizes[LINEAR] + small[CONV])
    plan = plan_for(few, layers, scores, found, budget)
    references = few.pictures()
    with quantized(few.unet, layers, plan, measured(layers, plan, *found), RUNTIME.rounding):
        got = psnr(few.pictures(), references)
    others = {CONV: Entry(8, 8), LINEAR: Entry(16, 16)}
    with quantized(few.unet, layers, others, measured(layers, others, *found), RUNTIME.rounding):
        worse = psnr(few.pictures(), references)
    print(f"{got:.1f} dB, with the layers swapped {worse:.1f} dB")
    assert got > worse


def test_weights_have_only_the_bits_that_are_allowed(few, layers, scores, found):
    least = sum(RUNTIME.size(layer, 8) for layer in layers)
    plan = plan_for(few, layers, scores, found, least, bits=(8, 16))
    assert {entry.weight_bits for entry in plan.values()} == {8}
    assert size(layers, plan) == least


def test_protected_layers_stay_in_float(few, layers, scores, found):
    least = RUNTIME.size(layers[0], 16) + RUNTIME.size(layers[1], 4)
    plan = plan_for(few, layers, scores, found, least, ["conv_*"])
    assert (plan[CONV].weight_bits, plan[LINEAR].weight_bits) == (16, 4)
    with pytest.raises(QuantizationError, match=f"2 layers need at least {least:,} bytes where"):
        plan_for(few, layers, scores, found, least - 1, ["conv_*"])


def test_an_unknown_protected_layer_is_named(few, layers, scores, found):
    with pytest.raises(
        QuantizationError, match="no layer to protect is called 'conv'; .*like 'conv_in'"
    ):
        plan_for(few, layers, scores, found, 10**9, ["conv"])
