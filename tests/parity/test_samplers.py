"""Samplers step by step against diffusers' schedulers, on a fixed nonlinear velocity."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from pipelines.noise import Generator
from pipelines.samplers import ESTIMATE, SAMPLERS, X
from pipelines.schedules import check, flow

FLOOR = 1e-4
SHIFTS = (1.0, 3.0, 5.5)


def velocity(sample, timestep):
    return np.tanh(sample * 0.7 - 0.2) * (0.5 + timestep / 1000) + 0.1


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20, 50])
def test_flow_euler_follows_diffusers_at_every_step(steps, shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    table = SAMPLERS["euler"](flow(scheduler.config, steps))
    assert len(table) == len(scheduler.timesteps) == steps
    ours = Generator(3).normal((1, 16, 8, 8))
    theirs = torch.from_numpy(ours.copy())
    for row, timestep in enumerate(scheduler.timesteps):
        assert table.timestep[row] == pytest.approx(timestep.item(), rel=1e-5)
        prediction = velocity(ours, table.timestep[row])
        reference = torch.from_numpy(velocity(theirs.numpy(), timestep.item()))
        theirs = scheduler.step(reference, timestep, theirs, return_dict=False)[0]
        estimate = table.a[row] * ours + table.b[row] * prediction
        ours = table.M[row, 0, X] * ours + table.M[row, 0, ESTIMATE] * estimate
        difference = np.linalg.norm(ours - theirs.numpy()) / np.linalg.norm(theirs.numpy())
        print(f"euler, shift {shift}, step {row} of {steps}: {difference:.1e}, floor {FLOOR:.0e}")
        assert difference <= FLOOR, f"step {row} of {steps} departs from diffusers"


@pytest.mark.parametrize(
    "config",
    [
        {"use_dynamic_shifting": True},
        {"use_karras_sigmas": True},
        {"_class_name": "EulerDiscreteScheduler"},
    ],
)
def test_a_schedule_that_is_not_served_is_refused(config):
    with pytest.raises(ValueError, match="scheduler: got"):
        check(config)
