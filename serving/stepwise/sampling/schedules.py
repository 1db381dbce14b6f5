"""Noise levels and timesteps of each denoiser call, following each scheduler's conventions.

A schedule combines a checkpoint and a spacing. The checkpoint's diffusers scheduler config gives
the prediction type and the noise path. Its class selects no sampler, because the request does. The
spacing places the steps.
"""

from collections.abc import Callable
from dataclasses import dataclass

from stepwise.sampling import diffusion, flow
from stepwise.sampling.schedule import (
    PREDICTIONS,
    Config,
    Float64,
    SamplerError,
    Schedule,
    Spacing,
    train_timesteps,
)
from stepwise.sampling.scheduler_config import check, is_flow

__all__ = [
    "KINDS",
    "PREDICTIONS",
    "Config",
    "Float64",
    "SamplerError",
    "Schedule",
    "Spacing",
    "check",
    "schedule",
]


@dataclass(frozen=True)
class Kind:
    """How one kind of scheduler spaces its steps, for flow and for diffusion checkpoints."""

    flow: Callable[[Config, Spacing, int], Schedule]
    diffusion: Callable[[Config, Spacing, int], Schedule]


KINDS = {
    "euler": Kind(flow.matching, diffusion.euler),
    "dpm": Kind(flow.dpm, diffusion.multistep),
    "unipc": Kind(flow.unipc, diffusion.multistep),
    "ddim": Kind(flow.matching, diffusion.ddim),
    "lcm": Kind(flow.matching, diffusion.lcm),
}


def schedule(config: Config, spacing: Spacing, steps: int) -> Schedule:
    """The schedule of ``steps`` steps. Raises SamplerError if the config does not support it."""
    check(config)
    if steps > train_timesteps(config):
        raise SamplerError(
            f"{steps} steps are more than the {train_timesteps(config)} noise levels that this "
            "checkpoint was trained on; request fewer"
        )
    kind = KINDS[spacing.family]
    return (kind.flow if is_flow(config) else kind.diffusion)(config, spacing, steps)
