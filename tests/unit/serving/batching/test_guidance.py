import numpy as np
import pytest
import torch
from diffusers.pipelines.easyanimate.pipeline_easyanimate import rescale_noise_cfg

from stepwise.batching.request import Picture
from stepwise.batching.stacking import guide
from tests.support.batching import request

CEILING = 2e-6


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(4, 3, 6, 8), (4, 6, 8)])
def test_guidance_is_rescaled_as_in_diffusers(shape, share):
    built, _ = request(guidance=6.0, guidance_rescale=share)
    prediction = np.random.default_rng(1).standard_normal((2, *shape), np.float32)
    negative, positive = torch.from_numpy(prediction)[:, None]
    guided = negative + 6.0 * (positive - negative)
    due = rescale_noise_cfg(guided, positive, share)[0].numpy()
    got = guide([Picture(built, 0)], prediction)[0]
    difference = np.abs(got - due).max() / np.abs(due).max()
    print(f"{difference:.1e} of the largest value, at most {CEILING:.0e}")
    assert difference <= CEILING
