"""Samplers step by step against diffusers' schedulers, run by the batcher that serves requests."""

import numpy as np
import pytest

from stepwise.sampling.samplers import SAMPLERS
from tests.support.oracles import EXACT, FLOWS, oracles
from tests.support.trajectories import ours, theirs

FLOOR = 1e-4


@pytest.mark.parametrize("oracle", oracles(), ids=str)
def test_a_sampler_follows_diffusers_at_every_step(oracle):
    worst = 0.0
    for steps in oracle.steps:
        mine = list(ours(oracle.sampler, oracle.config, steps))
        reference = list(theirs(oracle.build(steps)))
        assert len(mine) == len(reference)
        compared = zip(mine, reference, strict=True)
        for row, ((sample, timestep), (expected, at)) in enumerate(compared):
            if row >= len(mine) - oracle.rows_left_out:
                break
            difference = np.linalg.norm(sample - expected) / np.linalg.norm(expected)
            worst = max(worst, difference)
            place = f"row {row} of {len(mine)}, {steps} steps"
            assert timestep == pytest.approx(at, rel=1e-5, abs=1e-3), place
            assert difference <= FLOOR, f"{place}: {difference:.1e} from diffusers"
    print(f"{oracle}: at most {worst:.1e} from diffusers, floor {FLOOR:.0e}")


def test_every_sampler_has_an_oracle():
    on_diffusions = {o.sampler for o in oracles() if "prediction_type" in o.config}
    on_flows = {sampler for sampler, _, _ in FLOWS} | set(EXACT)
    assert on_diffusions == set(SAMPLERS)
    assert on_flows == {name for name in SAMPLERS if not name.endswith("_trailing")}
