"""The table of a sampler, and functions that samplers share.

In formulas a prime marks the value after a step: x = alpha * x0 + sigma * noise becomes x'.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stepwise.sampling.schedules import PREDICTIONS, Float64, Schedule

Indices = npt.NDArray[np.int64]

# Columns of M, and planes of a running picture's state.
X, Y, ESTIMATE, ESTIMATE_1, ESTIMATE_2, NOISE = range(6)
ESTIMATES = [ESTIMATE, ESTIMATE_1, ESTIMATE_2]


@dataclass(frozen=True)
class Table:
    """The rows of a sampler: every field has one entry per denoiser call; M is (rows, 2, 6)."""

    timestep: Float64
    in_scale: Float64
    a: Float64
    b: Float64
    M: Float64

    def __len__(self) -> int:
        return len(self.timestep)


def tabulate(s: Schedule, M: Float64, steps: Indices | None = None) -> Table:
    """The table with these matrices and with x0 as the estimate.

    ``steps`` gives the schedule index of each row's denoiser call; by default there is one row per
    step. The first row scales unit noise to the schedule's ``start``.
    """
    at = np.arange(len(s)) if steps is None else steps
    a, b = PREDICTIONS[s.prediction](s.alphas, s.sigmas)
    table = Table(s.timesteps[at], np.ones(len(M)), a[at], b[at], M)
    table.in_scale[0] = s.start
    table.a[0] *= s.start
    M[0, :, X] *= s.start
    return table


def empty_rows(s: Schedule) -> Float64:
    """One matrix of zeros for each step."""
    return np.zeros((len(s), 2, 6))


def euler_rows(s: Schedule) -> Float64:
    """x' = alpha' * x0 + sigma' * (x - alpha * x0) / sigma: the noise in x stays the same."""
    M = empty_rows(s)
    M[:, 0, X] = s.next_sigmas / s.sigmas
    M[:, 0, ESTIMATE] = s.next_alphas - s.alphas * s.next_sigmas / s.sigmas
    return M
