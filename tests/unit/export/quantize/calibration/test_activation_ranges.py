"""Activation ranges, judged by the rounding errors that they cause."""

import itertools

import pytest
import torch

from stepwise.export.quantize.calibration.activation_ranges import (
    Clipping,
    Range,
    activations,
    minmax,
    mse,
    percentile,
)
from stepwise.export.quantize.calibration.histogram import count
from stepwise.export.quantize.calibration.observers import Part, Place
from stepwise.export.quantize.layers import Group, Layer
from stepwise.export.quantize.search.fake_quant import round_to

LAYER = Layer("shortcut", (4, 6, 1, 1), Group.QUALITY, split=4)
MINMAX = dict.fromkeys(("shortcut", "attn2.to_k"), Clipping.MINMAX)
TEXT = Layer("attn2.to_k", (4, 6), Group.CONTENT, begins_alike=True)


def error(values, found):
    return float((round_to(values, found, symmetric=False) - values).square().mean())


@pytest.mark.parametrize("outlier", [1.0, 6.0, 60.0])
@pytest.mark.parametrize("shape", ["normal", "positive", "exponential"])
def test_no_other_range_has_a_much_smaller_error(shape, outlier):
    torch.manual_seed(0)
    values = torch.randn(50_000)
    values = {"normal": values, "positive": values.abs(), "exponential": values**3}[shape]
    values[:20] *= outlier
    whole = minmax(count(values))
    shares = torch.linspace(0.02, 1, 50).tolist()
    best = min(
        error(values, Range(whole.low * low, whole.high * high))
        for low, high in itertools.product(shares if whole.low else [1.0], shares)
    )
    got = error(values, mse(count(values)))
    print(f"{got / best:.3f} times the best of a grid, at most 1.05")
    assert got <= 1.05 * best
    assert got <= error(values, whole) * 1.001


def test_minmax_covers_all_values_and_zero():
    assert minmax(count(torch.tensor([2.0, 3.0]))) == Range(0.0, 3.0)
    assert minmax(count(torch.tensor([-2.0, 3.0]))) == Range(-2.0, 3.0)
    assert minmax(count(torch.tensor([-2.0, -1.0]))) == Range(-2.0, 0.0)


def test_percentile_clips_one_value_in_ten_thousand_at_each_end():
    found = percentile(count(torch.linspace(-1, 3, 100_001)))
    print(found)
    assert found.low == pytest.approx(-1 + 4e-4, abs=4 / 2048)
    assert found.high == pytest.approx(3 - 4e-4, abs=4 / 2048)


@pytest.mark.parametrize("symmetric", [True, False])
def test_zero_stays_zero_and_ends_are_kept(symmetric):
    found = Range(-1.3, 4.7)
    values = torch.tensor([0.0, 4.7, -1.3, 9.0])
    zero, high, low, cut = round_to(values, found, symmetric).tolist()
    assert zero == 0.0
    step = found.symmetric_step if symmetric else found.step
    assert (high, low) == pytest.approx((4.7, -1.3), abs=step / 2 + 1e-6)
    assert cut == high


def test_constant_zero_has_a_range():
    for take in (minmax, percentile, mse):
        found = take(count(torch.zeros(3)))
        assert round_to(torch.zeros(3), found, symmetric=False).tolist() == [0.0] * 3


def counted(layer, **parts):
    return {
        Place(layer.name, Part(part.replace("_", " ")), 0.0): count(torch.tensor(values))
        for part, values in parts.items()
    }


def test_only_a_split_layer_has_separate_ranges_of_its_halves():
    recording = counted(LAYER, input=[-1.0, 1.0], skip=[0.0, 9.0], output=[1.0])
    halves = activations(recording, [LAYER], MINMAX)[LAYER.name]
    assert halves.inputs == (Range(-1.0, 1.0), Range(0.0, 9.0))
    whole = Layer(LAYER.name, LAYER.shape, LAYER.group)
    assert activations(recording, [whole], MINMAX)[LAYER.name].inputs == (Range(-1, 9),)


def test_a_constant_first_token_is_left_out_of_the_ranges():
    recording = counted(
        TEXT, input=[-1.0, 1.0], output=[2.0], first_input=[90.0], first_output=[-80.0]
    )
    found = activations(recording, [TEXT], MINMAX)[TEXT.name]
    assert (found.inputs, found.output) == ((Range(-1.0, 1.0),), Range(0.0, 2.0))
    other = Layer(TEXT.name, TEXT.shape, TEXT.group)
    found = activations(recording, [other], MINMAX)[TEXT.name]
    assert (found.inputs, found.output) == ((Range(-1.0, 90.0),), Range(-80.0, 2.0))


def test_all_steps_share_a_range():
    recording = {
        Place(TEXT.name, part, step): count(torch.tensor([step]))
        for part in (Part.INPUT, Part.OUTPUT)
        for step in (999.0, 249.0)
    }
    found = activations(recording, [TEXT], MINMAX)[TEXT.name]
    assert found.inputs == (Range(0.0, 999.0),)
