"""Noise levels and timesteps of each denoiser call, with each convention's quirks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
_UNSUPPORTED = (
    "use_dynamic_shifting",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "invert_sigmas",
    "shift_terminal",
    "stochastic_sampling",
)


@dataclass(frozen=True)
class Schedule:
    """``sigmas`` has one entry more than ``timesteps``: the noise that is left at the end, 0."""

    sigmas: Float64
    timesteps: Float64


def flow(config: Mapping[str, Any], steps: int) -> Schedule:
    """Shifted flow-matching sigmas, as diffusers' FlowMatchEulerDiscreteScheduler spaces them.

    Sigmas are evenly spaced between both ends of the training schedule and then shifted by
    ``s -> shift * s / (1 + (shift - 1) * s)`` (arXiv 2403.03206, equation 23). The lower end has
    already been shifted once: diffusers does that, and seeds should mean the same here.
    """
    check(config)
    train, shift = config["num_train_timesteps"], float(config["shift"])
    sigmas = _shift(np.linspace(1.0, _shift(np.float64(1 / train), shift), steps), shift)
    return Schedule(np.append(sigmas, 0.0), sigmas * train)


def check(config: Mapping[str, Any]) -> None:
    """Raise ValueError if the scheduler config asks for a spacing that is not served."""
    name = config.get("_class_name", "FlowMatchEulerDiscreteScheduler")
    if name != "FlowMatchEulerDiscreteScheduler":
        raise ValueError(
            f"scheduler: got {name}; FlowMatchEulerDiscreteScheduler is what can be served"
        )
    for option in _UNSUPPORTED:
        if config.get(option):
            raise ValueError(
                f"scheduler: got {option}={config[option]!r}, which is not served; "
                "a static shift is"
            )


def _shift(sigmas: Any, shift: float) -> Any:
    return shift * sigmas / (1 + (shift - 1) * sigmas)
