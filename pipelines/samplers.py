"""Samplers as tables: one row per denoiser call, whatever the sampler.

    model input   = in_scale[i] * x                    timestep[i] goes to the denoiser
    estimate      = a[i] * x + b[i] * prediction       x0 or epsilon, as the history wants
    denoised      = p[i] * x + q[i] * prediction       for previews
    [x, y]        = M[i] @ [x, y, estimate, estimate_1, estimate_2, noise]

``x`` is the sample, ``y`` the saved sample, ``estimate_1`` and ``estimate_2`` those of the two
rows before. Requests with different samplers and step counts advance in one multiply-add.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipelines.schedules import Float64, Schedule

# Columns of M, and the planes of a running picture's state.
X, Y, ESTIMATE, ESTIMATE_1, ESTIMATE_2, NOISE = range(6)


@dataclass(frozen=True)
class Table:
    """The rows of a sampler: every field has one entry per denoiser call; M is (rows, 2, 6)."""

    timestep: Float64
    in_scale: Float64
    a: Float64
    b: Float64
    p: Float64
    q: Float64
    M: Float64

    def __len__(self) -> int:
        return len(self.timestep)


def euler(schedule: Schedule) -> Table:
    """Euler's method on the probability flow (arXiv 2206.00364, algorithm 1, without churn).

    With the estimate ``x0 = x - sigma * velocity`` one step is a blend of sample and estimate:
    ``x + (next - sigma) * velocity = next / sigma * x + (1 - next / sigma) * x0``.
    """
    sigma, following = schedule.sigmas[:-1], schedule.sigmas[1:]
    ones = np.ones_like(sigma)
    matrix = np.zeros((len(sigma), 2, 6))
    matrix[:, 0, X] = following / sigma
    matrix[:, 0, ESTIMATE] = 1 - following / sigma
    return Table(
        timestep=schedule.timesteps, in_scale=ones, a=ones, b=-sigma, p=ones, q=-sigma, M=matrix
    )  # fmt: skip


SAMPLERS: dict[str, Callable[[Schedule], Table]] = {"euler": euler}
