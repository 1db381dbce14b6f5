"""Quantized codes, compared with the weights that they encode."""

import pytest
import torch

from stepwise.export.quantize.search.weight_rounding import block_of, encode


@pytest.mark.parametrize(("bits", "least", "greatest"), [(8, -127, 127), (7, -63, 63), (4, -8, 7)])
@pytest.mark.parametrize("block", [0, 32, 64])
def test_weights_are_within_half_a_step(bits, least, greatest, block):
    torch.manual_seed(0)
    weight = torch.randn(5, 80) * torch.logspace(-3, 3, 5)[:, None]
    codes = encode(weight, bits, block)
    assert codes.scales.shape[:2] == (5, 80 // block_of(80, block))
    assert codes.codes.min() >= least
    assert codes.codes.max() <= greatest
    steps = codes.scales.expand(codes.codes.shape).flatten(1)
    worst = float(((codes.values() - weight).abs() / steps).max())
    # Scales of 4-bit codes are rounded to float16, which shifts the largest codes.
    allowed = 0.5 + (7 * 2**-11 if bits == 4 else 1e-3)
    print(f"{worst:.4f} steps off, at most {allowed:.4f}")
    assert worst <= allowed


def test_each_output_has_its_own_scale():
    weight = torch.randn(4, 3, 3, 3)
    alone = encode(weight[1:2], 8).values()
    assert torch.equal(encode(weight, 8).values()[1:2], alone)


def test_an_output_with_zero_weights_stays_zero():
    assert not encode(torch.zeros(2, 9), 4, 4).values().any()


@pytest.mark.parametrize(("inputs", "block"), [(320, 64), (640, 128), (70, 2), (64, 64)])
def test_blocks_have_the_largest_size_that_divides_the_inputs(inputs, block):
    assert block_of(inputs, 128 if inputs > 64 else 64) == block
    codes = encode(torch.ones(1, inputs), 4, 128)
    assert codes.codes.shape == (1, inputs // block, block)
    assert torch.allclose(codes.values(), torch.ones(1, inputs), rtol=1e-3)


def test_half_precision_weights_are_encoded_exactly_like_float32():
    weight = torch.randn(4, 64).half()
    assert torch.equal(encode(weight, 4, 32).values(), encode(weight.float(), 4, 32).values())
