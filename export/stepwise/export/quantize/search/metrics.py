"""The similarity of pictures and the noise of predictions, as floats."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

Array = npt.NDArray[Any]
_GREATEST = 255.0


def ssim(pictures: Array, references: Array) -> float:
    """Mean structural similarity of levels (pictures, 3, height, width), 0 to 255; 1 if equal."""
    # In float32, cancellation over even surfaces would hide differences below 1e-3.
    ours, theirs = (torch.from_numpy(batch).double() for batch in (pictures, references))
    found = structural_similarity_index_measure(ours, theirs, data_range=_GREATEST)
    assert isinstance(found, torch.Tensor)  # a tuple only on request
    return float(found)


def psnr(pictures: Array, references: Array) -> float:
    """Peak signal-to-noise ratio of all pictures together in dB; infinite if they are equal."""
    error = np.mean((pictures.astype(np.float64) - references) ** 2)
    return float(10 * np.log10(_GREATEST**2 / error)) if error else float("inf")


def noise(predictions: Array, references: Array) -> float:
    """The energy of the difference over that of the reference, a mean over rows (rows, …)."""
    axes = tuple(range(1, references.ndim))
    energy = np.sum(references.astype(np.float64) ** 2, axis=axes)
    error = np.sum((predictions.astype(np.float64) - references) ** 2, axis=axes)
    return float(np.mean(error / energy))
