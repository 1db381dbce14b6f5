import numpy as np
import pytest
import torch
from diffusers.models.transformers.transformer_easyanimate import EasyAnimateRotaryPosEmbed

from stepwise.families.easyanimate_rope import tables

# diffusers also computes in float32, where the largest angles have a resolution of 4e-6.
CEILING = 5e-6


@pytest.mark.parametrize(
    ("shape", "head_dim"),
    [
        ((16, 5, 6, 6), 32),
        ((16, 13, 64, 64), 64),
        ((16, 1, 60, 90), 64),
        ((16, 3, 90, 60), 64),
        ((16, 37, 128, 40), 64),
        ((16, 2, 40, 168), 128),
    ],
)
def test_tables_match_diffusers(shape, head_dim):
    cos, sin = tables(shape, 2, head_dim)
    due = EasyAnimateRotaryPosEmbed(2, head_dim)(torch.zeros(1, *shape))
    for got, expected in zip((cos, sin), due, strict=True):
        difference = np.abs(got - expected.numpy()).max()
        print(f"{shape}: {difference:.1e}, at most {CEILING:.0e}")
        assert got.dtype == np.float32
        assert got.shape == tuple(expected.shape)
        assert difference <= CEILING
