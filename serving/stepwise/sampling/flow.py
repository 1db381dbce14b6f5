"""Flow schedules: x = (1 - sigma) * x0 + sigma * noise, timestep = sigma * num_train_timesteps."""

from math import exp
from typing import Any

import numpy as np

from stepwise.sampling.schedule import (
    Config,
    Float64,
    SamplerError,
    Schedule,
    Spacing,
    ramped,
    train_timesteps,
)


def matching(config: Config, spacing: Spacing, steps: int) -> Schedule:
    """Sigmas as in diffusers' FlowMatchEulerDiscreteScheduler.

    As in diffusers, so that seeds give the same pictures, a static shift applies twice to the lower
    end: once to the smallest sigma of training, and again to the steps.
    """
    sigmas = ramped(_shift(np.linspace(1.0, _least_flow(config), steps), config), spacing.ramp)
    return _flow(spacing, sigmas, sigmas * train_timesteps(config))


def dpm(config: Config, spacing: Spacing, steps: int) -> Schedule:
    """Sigmas as in diffusers' DPMSolverMultistepScheduler: below 1, because alpha is 0 there."""
    sigmas = _shift(1 - np.linspace(1.0, 1 / train_timesteps(config), steps + 1), config)[:0:-1]
    return _multistep(config, spacing, sigmas)


def unipc(config: Config, spacing: Spacing, steps: int) -> Schedule:
    """Sigmas as in diffusers' UniPCMultistepScheduler, which subtracts 1e-6 from a sigma of 1."""
    sigmas = _shift(np.linspace(1.0, 1 / train_timesteps(config), steps + 1)[:-1], config)
    sigmas[0] -= 1e-6
    return _multistep(config, spacing, sigmas)


def _multistep(config: Config, spacing: Spacing, sigmas: Float64) -> Schedule:
    """Integer timesteps, as in diffusers' multistep schedulers.

    With a ramp, timesteps are exact and the lower end is that of FlowMatchEulerDiscreteScheduler.
    diffusers does not support ramps for flows: it uses the noise levels of a diffusion, up to 14.6,
    as sigmas, and returns NaN.
    """
    train = train_timesteps(config)
    if spacing.ramp is None:
        return _flow(spacing, sigmas, np.floor(sigmas * train))
    least = _shift(_least_flow(config), config)
    sigmas = ramped(np.linspace(sigmas[0], least, len(sigmas)), spacing.ramp)
    return _flow(spacing, sigmas, sigmas * train)


def _flow(spacing: Spacing, sigmas: Float64, timesteps: Float64) -> Schedule:
    if spacing.grid is not None:
        raise SamplerError(
            f"{spacing.grid!r} spacing needs a diffusion, and this checkpoint is a flow; use the "
            "sampler without it"
        )
    # diffusers stores sigmas in float32, and its rounding matters where alpha = 1 - sigma is 1e-6.
    sigmas = np.append(sigmas, 0.0).astype(np.float32).astype(np.float64)
    alphas = 1 - sigmas
    return Schedule(timesteps, alphas[:-1], sigmas[:-1], alphas[1:], sigmas[1:], "flow_prediction")


def _shift(sigmas: Any, config: Config) -> Any:
    """Shift steps to higher noise for larger pictures (arXiv 2403.03206, equation 23)."""
    shift = float(config.get("shift", config.get("flow_shift", 1.0)))
    if config.get("use_dynamic_shifting"):
        mu = float(config["mu"])
        shift = exp(mu) if config.get("time_shift_type", "exponential") == "exponential" else mu
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def _least_flow(config: Config) -> Any:
    least = 1 / train_timesteps(config)
    return least if config.get("use_dynamic_shifting") else _shift(least, config)
