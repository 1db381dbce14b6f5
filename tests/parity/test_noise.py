import numpy as np
import pytest
import torch

from stepwise.sampling.noise import Generator

FLOOR = 1e-6


@pytest.mark.parametrize("seed", [0, 1, 7, -1, -(2**63), 2**32 + 5, 2**63 - 1])
def test_noise_and_later_draws_match_torch(seed):
    reference, ours = torch.Generator("cpu").manual_seed(seed), Generator(seed)
    for shape in ((1, 16, 8, 8), (1, 4, 5, 7), (17,), (1, 16, 12, 6)):
        expected = torch.randn(shape, generator=reference).numpy()
        difference = np.abs(expected - ours.normal(shape)).max()
        print(f"seed {seed} {shape}: difference {difference:.2e}, floor {FLOOR:.0e}")
        assert difference <= FLOOR


def test_too_few_numbers_are_refused():
    with pytest.raises(ValueError, match="got 15 numbers to draw; at least 16"):
        Generator(0).normal((15,))
