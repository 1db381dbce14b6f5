"""Codes against what they stand for."""

import pytest
import torch

from export.mixdq.weights import encode


@pytest.mark.parametrize(("bits", "least", "greatest"), [(8, -127, 127), (4, -8, 7)])
@pytest.mark.parametrize("block", [0, 32, 64])
def test_weights_are_within_half_a_step(bits, least, greatest, block):
    torch.manual_seed(0)
    weight = torch.randn(5, 80) * torch.logspace(-3, 3, 5)[:, None]
    codes = encode(weight, bits, block)
    assert codes.scales.shape[:2] == (5, -(-80 // (block or 80)))
    assert codes.codes.min() >= least
    assert codes.codes.max() <= greatest
    steps = codes.scales.expand(codes.codes.shape).flatten(1)[:, :80]
    worst = float(((codes.values() - weight).abs() / steps).max())
    print(f"{worst:.3f} steps off, at most 0.5")
    assert worst <= 0.5 + 1e-3


def test_a_scale_belongs_to_an_output_alone():
    weight = torch.randn(4, 3, 3, 3)
    alone = encode(weight[1:2], 8).values()
    assert torch.equal(encode(weight, 8).values()[1:2], alone)


def test_an_output_without_weights_stays_without():
    assert not encode(torch.zeros(2, 9), 4, 4).values().any()


def test_the_ends_of_a_row_that_fills_no_block_are_kept():
    weight = torch.ones(1, 70)
    assert torch.allclose(encode(weight, 4, 64).values(), weight)


def test_half_precision_is_encoded_as_its_own_values():
    weight = torch.randn(4, 64).half()
    assert torch.equal(encode(weight, 4, 32).values(), encode(weight.float(), 4, 32).values())
