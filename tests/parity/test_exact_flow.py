"""Samplers on a flow with a known solution, mainly those that diffusers does not have.

Data is Gaussian with mean MEAN and variance VARIANCE at every pixel. The optimal denoiser is then
linear in x, x is Gaussian at every noise level, and samplers must reproduce these Gaussians.
"""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler

from stepwise.sampling.samplers import NOISE, SAMPLERS, Table, X, table
from tests.support.oracles import STEPS
from tests.support.trajectories import SEED, SIDE, denoiser, ours, picture, step

SD3 = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
UNSHIFTED = SD3 | {"shift": 1.0}
WORDS = [name for name in SAMPLERS if not name.endswith("_trailing")]
MEAN, VARIANCE = 0.7, 0.25
FLOOR = 1e-4
# Multistep samplers start from unit noise, although the first noise level is 0.9997.
POINT_FLOOR = 1e-3
# Least order of convergence from 40 to 160 steps: the power of the step size with which the error
# falls. A consistency sampler solves no equation, and diffusers' third order is slow (see
# dpmpp_3m_sde).
FALLS = {
    "euler": 0.9,
    "euler_karras": 0.9,
    "euler_exponential": 0.9,
    "euler_ancestral": 0.9,
    "heun": 1.9,
    "heun_karras": 1.9,
    "ddim": 0.9,
    "dpmpp_2m": 1.6,
    "dpmpp_2m_karras": 1.7,
    "dpmpp_2m_exponential": 1.7,
    "dpmpp_2m_sde": 1.6,
    "dpmpp_2m_sde_karras": 1.8,
    "dpmpp_3m_sde": 0.6,
    "dpmpp_3m_sde_karras": 1.0,
    "dpmpp_3m_sde_exponential": 1.0,
    "unipc": 2.0,
    "unipc_karras": 2.0,
    "deis": 1.6,
    "deis_karras": 1.7,
}


class Impulses:
    """A generator that sets only the n-th pixel to 1 in its n-th draw, to separate the draws.

    This gives a linear sampler's response to white noise exactly: its deviation is the root of
    the sum of squares of the impulses that remain.
    """

    def __init__(self) -> None:
        self._drawn = 0

    def normal(self, shape):
        noise = np.zeros(shape, np.float32)
        noise.reshape(-1)[self._drawn] = 1
        self._drawn += 1
        return noise


def sigmas(table: Table) -> np.ndarray:
    """The noise level at which each row calls the denoiser: x0 = x - sigma * velocity."""
    return -table.b


def rows(sampler, config, steps, variance) -> Iterator[tuple[float, float]]:
    """Mean and deviation of the samples after each row."""
    running = picture(sampler, config, steps, side=14)
    running.generator = Impulses()
    running.state[X] = running.generator.normal(running.state[X].shape)
    while not running.finished:
        sigma = sigmas(running.request.table)[running.row]
        step(running, lambda x, _, sigma=sigma: velocity(x.astype(np.float64), sigma, variance))
        values = running.state[X].reshape(-1).astype(np.float64)
        # No draw reaches the last pixel.
        mean = values[-1]
        yield mean, float(np.sqrt(np.sum((values - mean) ** 2)))


def velocity(x, sigma, variance):
    """noise - x0, where x0 is the expected value of the data given x."""
    alpha = 1 - sigma
    gain = alpha * variance / (alpha**2 * variance + sigma**2)
    return (x - (MEAN + gain * (x - alpha * MEAN))) / sigma


def exact(table: Table) -> tuple[float, float]:
    """Final mean and deviation of the exact solution that starts from unit noise."""
    if table.M[:, 0, NOISE].any():
        return MEAN, VARIANCE**0.5
    sigma, alpha = sigmas(table)[0], 1 - sigmas(table)[0]
    scale = (VARIANCE / (alpha**2 * VARIANCE + sigma**2)) ** 0.5
    return MEAN - scale * alpha * MEAN, scale


@pytest.mark.parametrize("sampler", WORDS)
def test_a_single_data_point_is_exact_at_every_noise_level(sampler):
    """If all data is one point, x has mean (1 - sigma) * MEAN and deviation sigma at each level."""
    worst = 0.0
    for steps in STEPS:
        levels = np.append(sigmas(table(sampler, SD3, steps))[1:], 0.0)
        for row, (mean, deviation) in enumerate(rows(sampler, SD3, steps, variance=0.0)):
            error = max(abs(mean - (1 - levels[row]) * MEAN), abs(deviation - levels[row]))
            worst = max(worst, error)
            assert error <= POINT_FLOOR, f"row {row} of {len(levels)}, {steps} steps: {error:.1e}"
        assert error <= FLOOR, f"{error:.1e} is left after {steps} steps"
    print(f"{sampler}: at most {worst:.1e} off, floor {POINT_FLOOR:.0e}; {FLOOR:.0e} at the end")


@pytest.mark.parametrize("sampler", FALLS)
def test_the_error_falls_with_the_step_size(sampler):
    errors = []
    for steps in (40, 160):
        *_, last = rows(sampler, UNSHIFTED, steps, VARIANCE)
        errors.append(np.abs(np.subtract(last, exact(table(sampler, UNSHIFTED, steps)))).max())
    fall = float(np.log2(errors[0] / errors[1]) / 2)
    print(f"{sampler}: {errors[0]:.1e}, {errors[1]:.1e}: order {fall:.2f}, floor {FALLS[sampler]}")
    assert errors[1] <= 0.03
    assert fall >= FALLS[sampler]


def test_euler_ancestral_on_a_flow_matches_diffusers_in_another_variable():
    """x / (1 - sigma) has noise level sigma / (1 - sigma): the form of Karras et al."""
    steps = 20
    mine = [sample for sample, _ in ours("euler_ancestral", SD3, steps)]
    timesteps = table("euler_ancestral", SD3, steps).timestep
    levels = np.append(sigmas(table("euler_ancestral", SD3, steps)), 0.0)
    generator = torch.Generator("cpu").manual_seed(SEED)
    initial, fresh = (torch.randn((1, 4, SIDE, SIDE), generator=generator) for _ in range(2))
    # In that variable the first level is infinite, so all noise after it is fresh.
    x0 = initial - torch.from_numpy(denoiser(initial.numpy(), timesteps[0]))
    sample = x0 * (1 - levels[1]) + fresh * levels[1]
    scheduler = EulerAncestralDiscreteScheduler()
    scheduler.set_timesteps(steps - 1)
    scheduler.sigmas = torch.from_numpy(levels[1:] / (1 - levels[1:])).float()
    scheduler.is_scale_input_called = True
    for row in range(1, steps):
        assert np.linalg.norm(mine[row - 1] - sample[0].numpy()) <= FLOOR * np.linalg.norm(sample)
        velocity = torch.from_numpy(denoiser(sample.numpy(), timesteps[row])).float()
        noise = sample + (1 - levels[row]) * velocity
        scaled = (sample / (1 - levels[row])).float()
        timestep = scheduler.timesteps[row - 1]
        scaled = scheduler.step(noise.float(), timestep, scaled, generator=generator).prev_sample
        sample = scaled * (1 - levels[row + 1])
    difference = np.linalg.norm(mine[-1] - sample[0].numpy()) / np.linalg.norm(sample)
    print(f"{difference:.1e} from diffusers, floor {FLOOR:.0e}")
    assert difference <= FLOOR
