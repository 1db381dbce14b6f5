"""Diffusion schedules: alpha^2 + sigma^2 = 1, computed from the training betas."""

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


def euler(config: Config, spacing: Spacing, steps: int) -> Schedule:
    """Timesteps, possibly fractional, as in diffusers' EulerDiscreteScheduler."""
    timesteps = _grid(config, spacing, steps, ends=True)
    ladder = _levels(config)
    levels = np.interp(timesteps, np.arange(len(ladder)), ladder)
    if spacing.ramp:
        levels = ramped(levels, spacing.ramp)
        timesteps = _timesteps(levels, ladder)
    leading = _grid_name(config, spacing) == "leading"
    start = 1.0 if leading else levels[0] / np.hypot(1, levels[0])
    return _from_levels(config, timesteps, np.append(levels, 0.0), start)


def multistep(config: Config, spacing: Spacing, steps: int) -> Schedule:
    """Integer timesteps, as in diffusers' DPMSolverMultistepScheduler, UniPC and DEIS."""
    ladder = _levels(config)
    if spacing.ramp:
        levels = ramped(np.linspace(ladder[-1], ladder[0], steps), spacing.ramp)
        whole = np.round if spacing.ramp == "karras" else np.floor
        timesteps = whole(_timesteps(levels, ladder))
    else:
        timesteps = np.round(_grid(config, spacing, steps, ends=False))
        levels = ladder[timesteps.astype(int)]
    return _from_levels(
        config, timesteps, np.append(levels, 0.0 if spacing.to_zero else ladder[0]), start=1.0
    )


def ddim(config: Config, spacing: Spacing, steps: int) -> Schedule:
    """Timesteps as in diffusers' DDIMScheduler.

    Each step goes down by num_train_timesteps // steps, so it may not end where the next one
    begins.
    """
    timesteps = np.round(_grid(config, spacing, steps, ends=True, default="leading"))
    products = _products(config)
    last = 1.0 if config.get("set_alpha_to_one", True) else products[0]
    following = (timesteps - train_timesteps(config) // steps).astype(int)
    return _vp(
        config,
        timesteps,
        products[timesteps.astype(int)],
        np.where(following < 0, last, products[following]),
    )


def lcm(config: Config, spacing: Spacing, steps: int) -> Schedule:
    """A subset of the distillation's timesteps, as in diffusers' LCMScheduler."""
    original, train = config.get("original_inference_steps", 50), train_timesteps(config)
    if steps > original:
        raise SamplerError(
            f"{steps} steps are more than the {original} that the checkpoint was distilled with; "
            "request fewer"
        )
    distilled = (np.arange(1, original + 1) * (train // original) - 1)[::-1]
    timesteps = distilled[np.linspace(0, original, steps, endpoint=False).astype(int)]
    products = _products(config)[timesteps]
    return _vp(config, timesteps.astype(np.float64), products, np.append(products[1:], 1.0))


def _from_levels(config: Config, timesteps: Float64, levels: Float64, start: float) -> Schedule:
    """A schedule from N + 1 noise levels sigma / alpha."""
    products = 1 / (1 + levels**2)
    return _vp(config, timesteps, products[:-1], products[1:], float(start))


def _vp(
    config: Config, timesteps: Float64, now: Float64, following: Float64, start: float = 1.0
) -> Schedule:
    """A schedule from alpha^2 before and after each step."""
    prediction = config.get("prediction_type", "epsilon")
    before, after = (np.sqrt(now), np.sqrt(1 - now)), (np.sqrt(following), np.sqrt(1 - following))
    return Schedule(timesteps, *before, *after, prediction, start)


def _products(config: Config) -> Float64:
    """alpha^2 at each training timestep, (num_train_timesteps,)."""
    power = {"linear": 1.0, "scaled_linear": 0.5}[config.get("beta_schedule", "linear")]
    first, last = config.get("beta_start", 1e-4), config.get("beta_end", 0.02)
    betas = np.linspace(first**power, last**power, train_timesteps(config)) ** (1 / power)
    products = np.cumprod(1 - betas)
    if config.get("rescale_betas_zero_snr"):
        # arXiv 2305.08891, algorithm 1.
        alphas = np.sqrt(products)
        products = ((alphas - alphas[-1]) * alphas[0] / (alphas[0] - alphas[-1])) ** 2
    return np.asarray(products)


def _levels(config: Config) -> Float64:
    """sigma / alpha at each training timestep; diffusers replaces an alpha of 0 by 2^-12."""
    products = np.maximum(_products(config), 2.0**-24)
    return np.asarray(np.sqrt((1 - products) / products))


def _timesteps(levels: Float64, ladder: Float64) -> Float64:
    """Training timesteps of these noise levels, interpolated linearly in log(level)."""
    return np.interp(np.log(levels), np.log(ladder), np.arange(len(ladder)))


def _grid_name(config: Config, spacing: Spacing, default: str = "linspace") -> str:
    return spacing.grid or str(config.get("timestep_spacing", default))


def _grid(
    config: Config, spacing: Spacing, steps: int, ends: bool, default: str = "linspace"
) -> Float64:
    """Descending timesteps, (steps,) (arXiv 2305.08891, table 2).

    With ``ends`` the grid includes the end of training; without it there is one more interval.
    ``default`` is the spacing that the sampler's diffusers class uses if the config names none.
    """
    train, intervals = train_timesteps(config), steps if ends else steps + 1
    name = _grid_name(config, spacing, default)
    timesteps: Float64 = np.linspace(train - 1, 0, intervals)[:steps]
    if name == "trailing":
        # Rounding can give np.arange one number too many, at 61 steps for example.
        timesteps = np.round(np.arange(train, 0, -train / steps)[:steps]) - 1
    elif name == "leading":
        down = np.arange(intervals - 1, intervals - 1 - steps, -1)
        timesteps = down * (train // intervals) + float(config.get("steps_offset", 0))
    return np.minimum(timesteps, train - 1)
