"""Samplers that reuse the estimates of earlier steps.

h is a step of log(alpha / sigma), so a step multiplies sigma / alpha by exp(-h).
"""

import numpy as np

from stepwise.sampling.schedules import Float64, Schedule
from stepwise.sampling.table import (
    ESTIMATE,
    ESTIMATE_1,
    ESTIMATES,
    NOISE,
    Indices,
    Table,
    X,
    Y,
    empty_rows,
    euler_rows,
    tabulate,
)

# diffusers lowers the order of the last steps if there are fewer steps than this.
_FEW = 15
# The differences of the newer two and of the older two estimates, as weights of all three.
_NEWER, _OLDER = np.array([1.0, -1.0, 0.0]), np.array([0.0, 1.0, -1.0])


def dpmpp_2m(s: Schedule) -> Table:
    """DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2).

    x' = sigma' / sigma * x + alpha' * (1 - exp(-h)) * D, where D is x0 half a step ahead.
    """
    return tabulate(s, _dpm_rows(s, _orders(len(s), 2)))


def dpmpp_2m_sde(s: Schedule) -> Table:
    """SDE-DPM-Solver++(2M) (arXiv 2211.01095, the solvers for diffusion SDEs).

    x' = sigma' / sigma * exp(-h) * x + alpha' * (1 - exp(-2h)) * D
         + sigma' * sqrt(1 - exp(-2h)) * noise.
    """
    return tabulate(s, _dpm_rows(s, _orders(len(s), 2), stochastic=True))


def dpmpp_3m_sde(s: Schedule) -> Table:
    """DPM-Solver++(3M) SDE (k-diffusion, ``sample_dpmpp_3m_sde``), as in diffusers.

    diffusers subtracts half a second derivative where k-diffusion adds it, so it converges only at
    first order. We follow diffusers, so that pictures agree.
    """
    return tabulate(s, _dpm_rows(s, _orders(len(s), 3), stochastic=True))


def unipc(s: Schedule) -> Table:
    """UniPC of order 2 with B(h) = exp(h) - 1, "bh2" (arXiv 2302.04867, section 3).

    A row first repeats the previous step from its sample y, now with the estimate at x: this
    corrects x. Then it predicts from the corrected sample, which becomes y. With this B(h) the
    predictor is that of DPM-Solver++(2M).
    """
    orders = _orders(len(s), 2)
    M = _dpm_rows(s, orders)
    M[0, 1, X] = 1
    euler, h = euler_rows(s)[:, 0], -np.log(_decays(s))
    for i in range(1, len(s)):
        M[i, 1] = _corrected(euler[i - 1], h[:i], orders[i - 1])
        M[i, 0] += M[i, 0, X] * (M[i, 1] - np.eye(6)[X])
    return tabulate(s, M)


def deis(s: Schedule) -> Table:
    """DEIS of order 2 in log(rho), rho = sigma / alpha (arXiv 2204.13902, ρAB-DEIS).

    x / alpha changes by the integral over rho of the noise estimate (x - alpha * x0) / sigma. A
    line in log(rho) through this noise estimate and the previous one approximates it. The previous
    one is recomputed from the previous sample, y.
    """
    rho, next_rho = s.sigmas / s.alphas, s.next_sigmas / s.next_alphas
    orders = np.minimum(2, np.arange(1, len(s) + 1))
    if len(s) < _FEW:
        orders[-1] = 1
    M = euler_rows(s)
    M[:, 1, X] = 1
    for i in np.flatnonzero(orders == 2):
        now, last = (
            _log_integral(next_rho[i], rho[a], rho[b]) - _log_integral(rho[i], rho[a], rho[b])
            for a, b in ((i, i - 1), (i - 1, i))
        )
        M[i, 0, X] = s.next_alphas[i] * (1 / s.alphas[i] + now / s.sigmas[i])
        M[i, 0, ESTIMATE] = -s.next_alphas[i] * now / rho[i]
        M[i, 0, Y] = s.next_alphas[i] * last / s.sigmas[i - 1]
        M[i, 0, ESTIMATE_1] = -s.next_alphas[i] * last / rho[i - 1]
    return tabulate(s, M)


def _decays(s: Schedule) -> Float64:
    """exp(-h) of each step, 0 if the step removes all noise."""
    return s.next_sigmas * s.alphas / (s.sigmas * s.next_alphas)


def _orders(count: int, most: int) -> Indices:
    """The order of each step: it rises at the start, is 1 at the end, and falls over few steps."""
    rising, falling = np.arange(1, count + 1), np.arange(count, 0, -1)
    if count >= _FEW:
        falling[:-1] = most
    return np.minimum(most, np.minimum(rising, falling))


def _dpm_rows(s: Schedule, orders: Indices, stochastic: bool = False) -> Float64:
    """The multistep updates of DPM-Solver++, one order per step.

    The stochastic equation removes noise twice as fast and adds half of that back as fresh noise.
    """
    pace = 2 if stochastic else 1
    decays = _decays(s)
    h = -np.log(decays)
    gains = s.next_alphas * (1 - decays**pace)
    M = empty_rows(s)
    M[:, 0, X] = s.next_sigmas / s.sigmas * decays ** (pace - 1)
    M[:, 0, ESTIMATE] = gains
    if stochastic:
        M[:, 0, NOISE] = s.next_sigmas * np.sqrt(1 - decays**2)
    for i in np.flatnonzero(orders == 2):
        M[i, 0, ESTIMATES] += gains[i] / 2 * h[i] / h[i - 1] * _NEWER
    for i in np.flatnonzero(orders == 3):
        newer, older = h[i] / h[i - 1] * _NEWER, h[i] / h[i - 2] * _OLDER
        bend = (newer - older) * h[i] / (h[i - 1] + h[i - 2])
        slope = newer + bend * h[i - 1] / h[i]
        first = s.next_alphas[i] - gains[i] / (pace * h[i])
        second = -first / (pace * h[i]) - s.next_alphas[i] / 2
        M[i, 0, ESTIMATES] += first * slope + second * bend
    return M


def _corrected(euler: Float64, h: Float64, order: int) -> Float64:
    """A row that recomputes the previous step with the estimate at its result (UniC).

    ``euler`` is that step's row of Euler's method, ``order`` its order, ``h[-1]`` its h.
    """
    row = np.zeros(6)
    row[Y], row[ESTIMATE_1] = euler[[X, ESTIMATE]]
    newer, older = 0.5, 0.0
    if order == 2:
        ratio, B = -h[-2] / h[-1], np.expm1(-h[-1])
        phi = B / -h[-1] - 1
        moments = [phi / B, 2 * (phi / -h[-1] - 0.5) / B]
        older, newer = np.linalg.solve([[1.0, 1.0], [ratio, 1.0]], moments) / [ratio, 1.0]
    row[ESTIMATES] += row[ESTIMATE_1] * (newer * _NEWER - older * _OLDER)
    return row


def _log_integral(rho: float, at: float, zero: float) -> float:
    """The integral up to ``rho`` of the line in log(rho) that is 1 at ``at`` and 0 at ``zero``."""
    return float(rho * (np.log(rho / zero) - 1) / np.log(at / zero)) if rho else 0.0
