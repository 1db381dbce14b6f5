"""A picture denoised by our batcher and by a diffusers scheduler, from the same noise."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from stepwise.batching.request import Picture
from stepwise.batching.stacking import advance, guide, stack_latents
from stepwise.sampling.samplers import X
from tests.support.batching import request

SEED = 3
SIDE = 8
# These store x / alpha; we store x.
_SCALED = (
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
)
# x and timestep after each row of a sampler.
Trajectory = Iterator[tuple[np.ndarray, float]]


def denoiser(sample: np.ndarray, timestep: float) -> np.ndarray:
    """A smooth, bounded, strongly nonlinear prediction."""
    return np.tanh(sample * 0.7 - 0.2) * (0.5 + timestep / 1000) + 0.1


def picture(sampler: str, config: dict[str, Any], steps: int, side: int = SIDE) -> Picture:
    """A picture without guidance, with its initial noise drawn."""
    built, _ = request(steps, guidance=0.0, side=side, seed=SEED, sampler=sampler, schedule=config)
    started = Picture(built, 0)
    started.start(0.0)
    return started


def step(running: Picture, predict: Callable[[np.ndarray, float], np.ndarray]) -> float:
    """Advance a picture by one row; return the timestep of its denoiser call."""
    latents, timesteps = stack_latents([running])
    prediction = predict(latents, float(timesteps[0])).astype(np.float32)
    advance(running, *guide([running], prediction), batch=1)
    return float(timesteps[0])


def ours(sampler: str, config: dict[str, Any], steps: int) -> Trajectory:
    running = picture(sampler, config, steps)
    while not running.finished:
        timestep = step(running, denoiser)
        yield running.state[X].copy(), timestep


def theirs(scheduler: Any) -> Trajectory:
    generator = torch.Generator("cpu").manual_seed(SEED)
    sample = torch.randn((1, 4, SIDE, SIDE), generator=generator)
    sample = sample * getattr(scheduler, "init_noise_sigma", 1.0)
    takes = inspect.signature(scheduler.step).parameters
    fresh = {"generator": generator} if "generator" in takes else {}
    for timestep in scheduler.timesteps:
        seen = sample
        if hasattr(scheduler, "scale_model_input"):
            seen = scheduler.scale_model_input(sample, timestep)
        prediction = torch.from_numpy(denoiser(seen.numpy(), timestep.item()))
        sample = scheduler.step(prediction, timestep, sample, return_dict=False, **fresh)[0]
        yield (sample * _alpha(scheduler))[0].numpy(), timestep.item()


def _alpha(scheduler: Any) -> float:
    """The factor from the scheduler's sample to the scale of ours."""
    if type(scheduler).__name__ not in _SCALED:
        return 1.0
    return 1 / (1 + scheduler.sigmas[scheduler.step_index] ** 2) ** 0.5
