"""Noise levels and timesteps of each denoiser call, with each convention's quirks.

A schedule belongs to a checkpoint and a spacing together. The checkpoint's diffusers scheduler
config says what the denoiser predicts and along which path it was trained; its class says only
that, because the request chooses the sampler. The spacing says where the steps lie.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pipelines.schedules import diffusion, flow
from pipelines.schedules.config import check, is_flow
from pipelines.schedules.records import (
    PREDICTIONS,
    Config,
    Float64,
    SamplerError,
    Schedule,
    Spacing,
    train_timesteps,
)

__all__ = [
    "FAMILIES",
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
class Family:
    """How the schedulers of one kind space their steps, by what the checkpoint is."""

    flow: Callable[[Config, Spacing, int], Schedule]
    diffusion: Callable[[Config, Spacing, int], Schedule]


FAMILIES = {
    "euler": Family(flow.matching, diffusion.euler),
    "dpm": Family(flow.dpm, diffusion.multistep),
    "unipc": Family(flow.unipc, diffusion.multistep),
    "ddim": Family(flow.matching, diffusion.ddim),
    "lcm": Family(flow.matching, diffusion.lcm),
}


def schedule(config: Config, spacing: Spacing, steps: int) -> Schedule:
    """The schedule of ``steps`` steps; raise SamplerError if the config cannot give it."""
    check(config)
    if steps > train_timesteps(config):
        raise SamplerError(
            f"{steps} steps are more than the {train_timesteps(config)} noise levels that this "
            "checkpoint was trained on; ask for fewer"
        )
    family = FAMILIES[spacing.family]
    return (family.flow if is_flow(config) else family.diffusion)(config, spacing, steps)
