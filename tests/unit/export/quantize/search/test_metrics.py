"""Metrics, compared with their definitions."""

import numpy as np
import pytest

from stepwise.export.quantize.search.metrics import noise, psnr, ssim

CHANCE = np.random.default_rng(0)
PICTURES = CHANCE.integers(0, 256, (2, 3, 64, 64), np.uint8)


def test_equal_pictures():
    assert ssim(PICTURES, PICTURES) == pytest.approx(1.0, abs=1e-12)
    assert psnr(PICTURES, PICTURES) == float("inf")


def test_similarity_of_flat_pictures_depends_on_their_brightness():
    """Wang et al. 2004, equation 6: (2 a b + c) / (a² + b² + c) with c = (0.01 * 255)²."""
    a, b, c = 100, 150, (0.01 * 255) ** 2
    dark, bright = (np.full((1, 3, 32, 32), level, np.uint8) for level in (a, b))
    expected = (2 * a * b + c) / (a * a + b * b + c)
    assert ssim(dark, bright) == pytest.approx(expected, rel=1e-6)


def test_similarity_resolves_small_differences_on_flat_surfaces():
    even = np.full((1, 3, 32, 32), 200.0, np.float32)
    one, two = (even + size * CHANCE.standard_normal(even.shape) for size in (0.01, 0.02))
    losses = [1 - ssim(other, even) for other in (one, two)]
    print(f"losses of {losses}, the second about four times the first")
    assert losses[1] == pytest.approx(4 * losses[0], rel=0.2)


def test_peak_signal_to_noise():
    other = PICTURES ^ 1
    assert psnr(other, PICTURES) == pytest.approx(20 * np.log10(255))


def test_noise_is_a_mean_over_rows():
    reference = np.ones((2, 3, 4, 4), np.float32) * np.array([1, 10]).reshape(2, 1, 1, 1)
    found = noise(reference * np.array([1.1, 1.3]).reshape(2, 1, 1, 1), reference)
    assert found == pytest.approx((0.01 + 0.09) / 2)
