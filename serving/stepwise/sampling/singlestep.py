"""Samplers that use no estimates of earlier steps."""

import numpy as np

from stepwise.sampling.schedules import Schedule
from stepwise.sampling.table import (
    ESTIMATE,
    ESTIMATE_1,
    NOISE,
    Table,
    X,
    Y,
    empty_rows,
    euler_rows,
    tabulate,
)

# The skip connection of consistency models: the data's deviation, and the timestep's factor.
_SIGMA_DATA, _TIMESTEP_SCALING = 0.5, 10.0


def euler(s: Schedule) -> Table:
    """Euler's method on the probability flow (arXiv 2206.00364, algorithm 1, without churn).

    x' = alpha' * x0 + sigma' * (x - alpha * x0) / sigma is Euler's method on Karras' equation and
    on flow matching's (arXiv 2210.02747), and DDIM without fresh noise (arXiv 2010.02502,
    equation 12).
    """
    return tabulate(s, euler_rows(s))


def euler_ancestral(s: Schedule) -> Table:
    """Euler's method to a level below sigma', then fresh noise up to it (k-diffusion, sampling.py).

    The two parts sample the posterior q(x' | x, x0) (arXiv 2006.11239, equation 7). The lower level
    is sigma_down = alpha * sigma'^2 / (alpha' * sigma).
    """
    down = s.alphas * s.next_sigmas**2 / (s.next_alphas * s.sigmas)
    M = empty_rows(s)
    M[:, 0, X] = down / s.sigmas
    M[:, 0, ESTIMATE] = s.next_alphas - s.alphas * down / s.sigmas
    M[:, 0, NOISE] = np.sqrt(s.next_sigmas**2 - down**2)
    return tabulate(s, M)


def heun(s: Schedule) -> Table:
    """Heun's method (arXiv 2206.00364, algorithm 1, without churn): 2N - 1 rows.

    One row predicts as Euler does and saves x in y. The next row corrects with the mean of both
    slopes (z - x0) / t, where z = x / c and t = sigma / c, and c is alpha, or 1 for a flow. The
    last step is Euler's.
    """
    ones = np.ones(len(s))
    c, next_c = (ones, ones) if s.is_flow else (s.alphas, s.next_alphas)
    t, next_t = s.sigmas / c, s.next_sigmas / next_c
    half = (next_t - t) / 2
    predict, correct = euler_rows(s), empty_rows(s)
    predict[:, 1, X] = 1
    correct[:, 0, X] = half / next_t
    correct[:, 0, Y] = next_c / c * (1 + half / t)
    correct[:, 0, ESTIMATE] = -next_c * half / next_t
    correct[:, 0, ESTIMATE_1] = -next_c * half / t
    M = np.stack([predict, correct], axis=1).reshape(-1, 2, 6)[:-1]
    return tabulate(s, M, np.arange(1, 2 * len(s)) // 2)


def lcm(s: Schedule) -> Table:
    """Multistep consistency sampling (arXiv 2310.04378, algorithm 3): jump to x0, add new noise.

    For a diffusion, x0 is mixed with a little of x, as in its distillation (equation 9); for a
    flow, x0 is unchanged. Use a checkpoint that was distilled for LCM; others give soft pictures.
    """
    scaled = s.timesteps * _TIMESTEP_SCALING
    skip = 0 if s.is_flow else _SIGMA_DATA**2 / (scaled**2 + _SIGMA_DATA**2)
    out = 1 if s.is_flow else scaled / np.sqrt(scaled**2 + _SIGMA_DATA**2)
    M = empty_rows(s)
    M[:, 0, X] = s.next_alphas * skip
    M[:, 0, ESTIMATE] = s.next_alphas * out
    M[:, 0, NOISE] = s.next_sigmas
    return tabulate(s, M)
