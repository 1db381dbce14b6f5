"""Histograms of values over any number of tensors, without keeping a tensor."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stepwise.export.errors import QuantizationError

BINS = 2048
_LEAST_EXPONENT = -24


@dataclass(frozen=True)
class Histogram:
    """Counts of values in ``BINS`` equal bins from -``reach`` to ``reach``, a power of two.

    Adding two loses only resolution: bins are merged in pairs until the reaches are equal. ``low``
    and ``high`` are the least and the greatest value.
    """

    counts: npt.NDArray[np.int64]
    reach: float
    low: float
    high: float

    def __add__(self, other: "Histogram") -> "Histogram":
        """The counts of both."""
        reach = max(self.reach, other.reach)
        return Histogram(
            self._widened(reach) + other._widened(reach),
            reach,
            min(self.low, other.low),
            max(self.high, other.high),
        )

    @property
    def centers(self) -> npt.NDArray[np.float64]:
        """The middle of each bin."""
        return ((np.arange(BINS) + 0.5) * 2 / BINS - 1) * self.reach

    def _widened(self, reach: float) -> npt.NDArray[np.int64]:
        counts = self.counts
        for _ in range(round(math.log2(reach / self.reach))):
            counts = np.pad(counts.reshape(-1, 2).sum(axis=1), BINS // 4)
        return counts


def count(values: Tensor) -> Histogram:
    """Count a float tensor of any shape; QuantizationError if a value is not finite."""
    flat = values.detach().flatten().float()
    low, high = (float(end) for end in flat.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise QuantizationError(
            "the model gives values that are not finite, which have no range; check first that it "
            "draws good pictures"
        )
    _, exponent = math.frexp(max(-low, high))
    reach = 2.0 ** max(exponent, _LEAST_EXPONENT)
    places = ((flat / reach + 1) * (BINS / 2)).long().clamp_(0, BINS - 1)
    return Histogram(torch.bincount(places, minlength=BINS).numpy(), reach, low, high)


def total(histograms: Iterable[Histogram]) -> Histogram:
    """The sum of at least one histogram."""
    return reduce(Histogram.__add__, histograms)


def pack(histograms: Iterable[Histogram]) -> dict[str, npt.NDArray[Any]]:
    """Histograms as arrays to store, in their order."""
    found = list(histograms)
    return {
        "counts": np.stack([histogram.counts for histogram in found]),
        "ends": np.array([(h.reach, h.low, h.high) for h in found], np.float64),
    }


def unpack(arrays: Any) -> list[Histogram]:
    """The histograms that ``pack`` stored."""
    rows = zip(arrays["counts"], arrays["ends"].tolist(), strict=True)
    return [Histogram(counts, *ends) for counts, ends in rows]
