"""Samplers as tables, with one row per denoiser call for every sampler.

    model input   = in_scale[i] * x                    timestep[i] goes to the denoiser
    estimate      = a[i] * x + b[i] * prediction       of x0, the picture without noise
    [x, y]        = M[i] @ [x, y, estimate, estimate_1, estimate_2, noise]

``x`` is the sample, ``y`` the saved sample, ``estimate_1`` and ``estimate_2`` the estimates of the
two rows before. Requests with different samplers and step counts advance in one multiply-add.

Samplers are written for x = alpha * x0 + sigma * noise and work for any noise path and prediction
type. A schedule holds alpha and sigma before and after each step.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from stepwise.sampling.multistep import deis, dpmpp_2m, dpmpp_2m_sde, dpmpp_3m_sde, unipc
from stepwise.sampling.schedules import Config, SamplerError, Schedule, Spacing, schedule
from stepwise.sampling.singlestep import euler, euler_ancestral, heun, lcm
from stepwise.sampling.table import ESTIMATE, ESTIMATE_1, ESTIMATE_2, NOISE, Table, X, Y

__all__ = [
    "ESTIMATE",
    "ESTIMATE_1",
    "ESTIMATE_2",
    "NOISE",
    "SAMPLERS",
    "Sampler",
    "Table",
    "X",
    "Y",
    "table",
]


@dataclass(frozen=True)
class Sampler:
    """A sampler that a request may name: how its rows are computed and its steps are spaced."""

    rows: Callable[[Schedule], Table]
    spacing: Spacing


SAMPLERS = {
    "euler": Sampler(euler, Spacing("euler")),
    "euler_karras": Sampler(euler, Spacing("euler", ramp="karras")),
    "euler_exponential": Sampler(euler, Spacing("euler", ramp="exponential")),
    "euler_trailing": Sampler(euler, Spacing("euler", grid="trailing")),
    "euler_ancestral": Sampler(euler_ancestral, Spacing("euler")),
    "euler_ancestral_trailing": Sampler(euler_ancestral, Spacing("euler", grid="trailing")),
    "heun": Sampler(heun, Spacing("euler")),
    "heun_karras": Sampler(heun, Spacing("euler", ramp="karras")),
    "ddim": Sampler(euler, Spacing("ddim")),
    "ddim_trailing": Sampler(euler, Spacing("ddim", grid="trailing")),
    "dpmpp_2m": Sampler(dpmpp_2m, Spacing("dpm")),
    "dpmpp_2m_karras": Sampler(dpmpp_2m, Spacing("dpm", ramp="karras")),
    "dpmpp_2m_exponential": Sampler(dpmpp_2m, Spacing("dpm", ramp="exponential")),
    "dpmpp_2m_sde": Sampler(dpmpp_2m_sde, Spacing("dpm")),
    "dpmpp_2m_sde_karras": Sampler(dpmpp_2m_sde, Spacing("dpm", ramp="karras")),
    "dpmpp_3m_sde": Sampler(dpmpp_3m_sde, Spacing("dpm")),
    "dpmpp_3m_sde_karras": Sampler(dpmpp_3m_sde, Spacing("dpm", ramp="karras")),
    "dpmpp_3m_sde_exponential": Sampler(dpmpp_3m_sde, Spacing("dpm", ramp="exponential")),
    "unipc": Sampler(unipc, Spacing("unipc")),
    "unipc_karras": Sampler(unipc, Spacing("unipc", ramp="karras")),
    "deis": Sampler(deis, Spacing("dpm", to_zero=False)),
    "deis_karras": Sampler(deis, Spacing("dpm", ramp="karras", to_zero=False)),
    "lcm": Sampler(lcm, Spacing("lcm")),
}


def table(name: str, config: Config, steps: int) -> Table:
    """The table of the sampler ``name`` for a checkpoint with this diffusers scheduler config.

    ``steps`` is counted as in diffusers. Recent tables are kept, so their arrays are read-only.
    Raises SamplerError if the sampler does not support the checkpoint's schedule, and KeyError for
    a name that is not in ``SAMPLERS``.
    """
    return _table(name, json.dumps(config, sort_keys=True), steps)


@lru_cache(maxsize=64)
def _table(name: str, config: str, steps: int) -> Table:
    sampler = SAMPLERS[name]
    # A logarithm may be infinite where alpha or sigma is 0.
    with np.errstate(divide="ignore", invalid="ignore"):
        rows = sampler.rows(schedule(json.loads(config), sampler.spacing, steps))
    if not all(np.isfinite(values).all() for values in vars(rows).values()):
        raise SamplerError(
            f"its {steps} steps are not finite on this checkpoint's schedule; use euler"
        )
    for values in vars(rows).values():
        values.setflags(write=False)
    return rows
