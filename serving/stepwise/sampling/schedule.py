"""The types of a schedule and of its inputs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
# A checkpoint's diffusers scheduler config.
Config = Mapping[str, Any]

# x0 = a * x + b * prediction, for x = alpha * x0 + sigma * noise.
PREDICTIONS: dict[str, Callable[[Float64, Float64], tuple[Float64, Float64]]] = {
    "epsilon": lambda alpha, sigma: (1 / alpha, -sigma / alpha),
    "v_prediction": lambda alpha, sigma: (alpha, -sigma),
    "flow_prediction": lambda alpha, sigma: (np.ones_like(sigma), -sigma),
}
_RHO = 7.0


class SamplerError(ValueError):
    """A scheduler config is not supported, or not with this sampler and step count."""


@dataclass(frozen=True)
class Spacing:
    """How a sampler spaces its steps.

    ``family`` is a key of ``KINDS``, because diffusers' schedulers space the same checkpoint
    differently. ``ramp`` respaces the noise levels between the same ends: "karras" (arXiv
    2206.00364, equation 5) or "exponential". ``grid`` overrides the checkpoint's
    ``timestep_spacing``. With ``to_zero`` the last step of a diffusion removes all noise; without
    it, the step ends at the lowest noise level of training.
    """

    family: str
    ramp: str | None = None
    grid: str | None = None
    to_zero: bool = True


@dataclass(frozen=True)
class Schedule:
    """The noise levels before and after each of N steps, where x = alpha * x0 + sigma * noise.

    All arrays are (N,). ``prediction`` is a key of ``PREDICTIONS``. The first x is unit noise
    times ``start``.
    """

    timesteps: Float64
    alphas: Float64
    sigmas: Float64
    next_alphas: Float64
    next_sigmas: Float64
    prediction: str
    start: float = 1.0

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def is_flow(self) -> bool:
        """Whether the path is a straight line, alpha = 1 - sigma."""
        return self.prediction == "flow_prediction"


def train_timesteps(config: Config) -> int:
    """The number of noise levels that the checkpoint was trained on."""
    return int(config.get("num_train_timesteps", 1000))


def ramped(levels: Float64, ramp: str | None) -> Float64:
    """The same number of levels between the same ends, respaced by ``Spacing.ramp``."""
    first, last, count = levels[0], levels[-1], len(levels)
    if ramp == "karras":
        roots: Float64 = np.linspace(first ** (1 / _RHO), last ** (1 / _RHO), count)
        return np.asarray(roots**_RHO)
    return np.geomspace(first, last, count) if ramp == "exponential" else levels
