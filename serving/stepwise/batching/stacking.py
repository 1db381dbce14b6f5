"""Stack pictures into one denoiser call, and scatter its prediction."""

from collections.abc import Sequence

import numpy as np

from stepwise.batching.request import Float32, Picture
from stepwise.description.family import Conditioning
from stepwise.sampling.samplers import ESTIMATE, ESTIMATE_1, ESTIMATE_2, NOISE, X, Y


def stack_conditioning(pictures: Sequence[Picture]) -> Conditioning:
    """Every row's conditioning, stacked along a new batch dim, and the shared conditioning."""
    rows = [row for picture in pictures for row in picture.request.row_conditioning]
    stacked = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return {**stacked, **pictures[0].request.shared}


def stack_latents(pictures: Sequence[Picture]) -> tuple[Float32, Float32]:
    """Scaled latents (rows, *latent shape) and timesteps (rows,)."""
    counts = [picture.num_rows for picture in pictures]
    scaled = [p.state[X] * np.float32(p.request.table.in_scale[p.row]) for p in pictures]
    timesteps = [p.request.table.timestep[p.row] for p in pictures]
    return np.repeat(np.stack(scaled), counts, axis=0), np.repeat(
        np.asarray(timesteps, np.float32), counts
    )


def guide(pictures: Sequence[Picture], prediction: Float32) -> list[Float32]:
    """Classifier-free guidance (arXiv 2207.12598): one prediction per picture from its rows."""
    guided, row = [], 0
    for picture in pictures:
        first, last = prediction[row], prediction[row + picture.num_rows - 1]
        settings = picture.request.settings
        if picture.num_rows == 2:
            moved = first + np.float32(settings.guidance_scale) * (last - first)
            guided.append(_rescaled(moved, last, settings.guidance_rescale))
        else:
            guided.append(first)
        row += picture.num_rows
    return guided


def _rescaled(guided: Float32, positive: Float32, share: float) -> Float32:
    """Mix in ``share`` of the guided prediction rescaled to the positive one's deviation.

    arXiv 2305.08891, section 3.4, equations 15 and 16.
    """
    if share == 0.0:
        return guided
    spread, due = (np.std(values, dtype=np.float64, ddof=1) for values in (guided, positive))
    mixed: Float32 = guided * np.float32(share * due / spread + 1 - share)
    return mixed


def advance(picture: Picture, guided: Float32, batch: int) -> None:
    """Apply the next row of a picture's table to its state; ``batch`` pictures shared the call."""
    picture.draw_noise()
    state, table, row = picture.state, picture.request.table, picture.row
    state[ESTIMATE] = np.float32(table.a[row]) * state[X] + np.float32(table.b[row]) * guided
    flat = state.reshape(NOISE + 1, -1)
    moved = np.matmul(table.M[row].astype(np.float32), flat)
    picture.denoised = state[ESTIMATE].copy() if picture.preview_due else None
    flat[X], flat[Y] = moved
    state[ESTIMATE_2] = state[ESTIMATE_1]
    state[ESTIMATE_1] = state[ESTIMATE]
    picture.row += 1
    picture.batch_sum += batch
