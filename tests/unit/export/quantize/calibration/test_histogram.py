"""Histograms that are summed from parts, against numpy's histogram of all values."""

import numpy as np
import pytest
import torch

from stepwise.export.errors import QuantizationError
from stepwise.export.quantize.calibration.histogram import BINS, count, pack, total, unpack

PARTS = [torch.randn(3, 700), 40 * torch.randn(1500), torch.rand(9) - 90.0, torch.zeros(5)]


def test_a_sum_counts_the_values_of_all_parts():
    values = torch.cat([part.flatten() for part in PARTS]).numpy()
    for order in (PARTS, PARTS[::-1]):
        found = total(map(count, order))
        expected, _ = np.histogram(values, BINS, (-found.reach, found.reach))
        assert found.reach == 2.0 ** np.ceil(np.log2(np.abs(values).max()))
        assert (found.low, found.high) == (values.min(), values.max())
        # numpy divides by the bin width and may put a value on an edge into the other bin.
        assert np.abs(found.counts - expected).sum() <= 2
        assert found.counts.sum() == len(values)


def test_centers_are_those_of_the_bins():
    found = count(torch.tensor([0.75, -1.0]))
    assert found.reach == 2.0
    for value, bin_ in zip((-1.0, 0.75), np.flatnonzero(found.counts), strict=True):
        assert abs(found.centers[bin_] - value) <= found.reach / BINS


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_without_a_range_are_refused(value):
    with pytest.raises(QuantizationError, match="not finite"):
        count(torch.tensor([0.0, value]))


def test_stored_histograms_are_read_back(tmp_path):
    before = [count(part) for part in PARTS]
    np.savez_compressed(tmp_path / "a.npz", **pack(before))
    with np.load(tmp_path / "a.npz") as arrays:
        after = unpack(arrays)
    for ours, theirs in zip(before, after, strict=True):
        assert (ours.counts == theirs.counts).all()
        assert (ours.reach, ours.low, ours.high) == (theirs.reach, theirs.low, theirs.high)
