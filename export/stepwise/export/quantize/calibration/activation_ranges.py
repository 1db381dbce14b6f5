"""Turns histograms into the ranges to quantize, one set for all denoising steps.

Requests at different steps share a batch, so a range cannot depend on the step.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from stepwise.export.quantize.calibration.histogram import Histogram, total
from stepwise.export.quantize.calibration.observers import Part, Recording
from stepwise.export.quantize.layers import Layer

LEVELS = 256
# The share of values that may lie outside of a range on either side.
_OUTSIDE = 1e-4
_CANDIDATES = 128


@dataclass(frozen=True)
class Range:
    """The range of 8 bits: ``low`` <= 0 <= ``high``, as zero must be exact for padding."""

    low: float
    high: float

    @property
    def step(self) -> float:
        """The size of one level if zero may be any level, in the tensor's unit."""
        return (self.high - self.low) / (LEVELS - 1) or 1.0

    @property
    def zero(self) -> int:
        """The level of zero, 0 to 255."""
        return round(-self.low / self.step)

    @property
    def symmetric_step(self) -> float:
        """The size of one level if zero is in the middle of -127 to 127."""
        return max(-self.low, self.high) / (LEVELS // 2 - 1) or 1.0


@dataclass(frozen=True)
class Activation:
    """Ranges of a layer's input and output.

    A layer with a split has two ``inputs``: the block's channels, then the skip's.
    """

    inputs: tuple[Range, ...]
    output: Range


Activations = Mapping[str, Activation]


class Clipping(StrEnum):
    """How a range is taken from a histogram."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    MSE = "mse"


def activations(
    recording: Recording, layers: Iterable[Layer], clippings: Mapping[str, Clipping]
) -> dict[str, Activation]:
    """The ranges of every layer, each taken by the layer's entry in ``clippings``.

    A layer without a split has one range for all of its input. A layer without ``begins_alike``
    counts its first token with the others.
    """
    gathered: defaultdict[tuple[str, Part], list[Histogram]] = defaultdict(list)
    for place, histogram in recording.items():
        gathered[place.layer, place.part].append(histogram)

    def taken(layer: Layer, *parts: Part) -> Range:
        take = CLIPPINGS[clippings[layer.name]]
        return take(total(h for part in parts for h in gathered.get((layer.name, part), ())))

    found = {}
    for layer in layers:
        first = not layer.begins_alike
        whole = (Part.INPUT, *[Part.FIRST_INPUT] * first)
        parts = [whole, (Part.SKIP,)] if layer.split else [(*whole, Part.SKIP)]
        inputs = tuple(taken(layer, *part) for part in parts)
        output = taken(layer, Part.OUTPUT, *[Part.FIRST_OUTPUT] * first)
        found[layer.name] = Activation(inputs, output)
    return found


def minmax(histogram: Histogram) -> Range:
    """The range of all values."""
    return Range(min(histogram.low, 0.0), max(histogram.high, 0.0))


def percentile(histogram: Histogram) -> Range:
    """The range of all but one in ten thousand values on either side."""
    shares = np.cumsum(histogram.counts) / histogram.counts.sum()
    low, high = np.searchsorted(shares, (_OUTSIDE, 1 - _OUTSIDE))
    return _within(histogram, histogram.centers[low], histogram.centers[high])


def mse(histogram: Histogram) -> Range:
    """The range with the least squared error of rounding inside and clipping outside.

    Rounding to steps of d costs d² / 12 a value.
    """
    whole, counts, centers = minmax(histogram), histogram.counts, histogram.centers
    shares = np.arange(1, _CANDIDATES + 1) / _CANDIDATES
    lows, highs = whole.low * shares[:, None], whole.high * shares[:, None]
    below = (np.minimum(centers - lows, 0) ** 2) @ counts
    above = (np.maximum(centers - highs, 0) ** 2) @ counts
    steps = (highs.T - lows) / (LEVELS - 1)
    errors = below[:, None] + above[None, :] + steps**2 / 12 * counts.sum()
    low, high = np.unravel_index(np.argmin(errors), errors.shape)
    return Range(float(lows[low, 0]), float(highs[high, 0]))


def _within(histogram: Histogram, low: float, high: float) -> Range:
    whole = minmax(histogram)
    return Range(max(whole.low, min(float(low), 0.0)), min(whole.high, max(float(high), 0.0)))


CLIPPINGS: dict[Clipping, Callable[[Histogram], Range]] = {
    Clipping.MINMAX: minmax,
    Clipping.PERCENTILE: percentile,
    Clipping.MSE: mse,
}
