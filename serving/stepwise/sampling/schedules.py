"""Noise levels and timesteps of each denoiser call, with each convention's quirks.

A schedule belongs to a checkpoint and a spacing together. The checkpoint's diffusers scheduler
config says what the denoiser predicts and along which path it was trained; its class says only
that, because the request chooses the sampler. The spacing says where the steps lie.
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
    """How the schedulers of one kind space their steps, by what the checkpoint is."""

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
    """The schedule of ``steps`` steps; raise SamplerError if the config cannot give it."""
    check(config)
    if steps > train_timesteps(config):
        raise SamplerError(
            f"{steps} steps are more than the {train_timesteps(config)} noise levels that this "
            "checkpoint was trained on; ask for fewer"
        )
    kind = KINDS[spacing.family]
    return (kind.flow if is_flow(config) else kind.diffusion)(config, spacing, steps)
