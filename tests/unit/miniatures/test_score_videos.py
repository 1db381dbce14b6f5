"""The scorer reads drawn videos, even slightly damaged ones, and rejects all others."""

import random

import numpy as np
import pytest
from scipy import ndimage

from miniatures.score_videos import Reading, read, score
from miniatures.videos import FRAMES, SIDE, VIDEOS, Video, draw, evaluation
from tests.conftest import further

ASKED = Video("red", "circle", "left", "white")


@pytest.fixture(scope="module", params=[7, further(1)])
def drawn(request):
    rng = random.Random(5)
    return [(video, draw(video, rng)) for video in VIDEOS[:: request.param]]


def blurred(video):
    return ndimage.gaussian_filter(video.astype(float), (0, 0.7, 0.7, 0)).round().astype(np.uint8)


def noisy(video):
    noise = np.random.default_rng(int(video.sum())).normal(0, 6, video.shape)
    return np.clip(video + noise, 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("damage", [np.asarray, blurred, noisy])
def test_drawn_videos_are_read(drawn, damage):
    share = np.mean([all(score(damage(made), video).values()) for video, made in drawn])
    print(f"{100 * share:.1f}% of {len(drawn)} read correctly, floor 99%")
    assert share >= 0.99


def test_a_reversed_video_moves_the_other_way():
    assert read(draw(ASKED, random.Random(1))[::-1]).direction == "right"


def test_one_frame_of_another_video_makes_differing_features_unreadable():
    video = draw(ASKED, random.Random(1))
    video[8] = draw(Video("blue", "square", "left", "white"), random.Random(1))[8]
    assert read(video) == Reading(None, None, "left", "white")


def test_with_one_empty_frame_only_the_background_is_read():
    video = draw(ASKED, random.Random(1))
    video[3] = 255
    assert read(video) == Reading(background="white")


@pytest.mark.parametrize("order", [[0] * FRAMES, [0, 16] * 8 + [0], [*range(16, -1, -2)] * 2])
def test_a_shape_that_stands_still_or_jumps_has_no_direction(order):
    video = draw(ASKED, random.Random(1))[order[:FRAMES]]
    assert read(video) == Reading("red", "circle", None, "white")


def test_a_shape_that_moves_diagonally_has_no_direction():
    video = draw(ASKED, random.Random(1))
    slanted = np.stack([np.roll(frame, place - 8, axis=0) for place, frame in enumerate(video)])
    assert read(slanted).direction is None


def test_noise_is_unreadable():
    generator = np.random.default_rng(0)
    for _ in range(20):
        video = generator.integers(0, 256, (FRAMES, SIDE, SIDE, 3), np.uint8)
        assert read(video) in (Reading(), Reading(background="gray"))


@pytest.mark.parametrize("shape", [(16, 48, 48, 3), (17, 64, 64, 3), (48, 48, 3)])
def test_other_sizes_are_refused(shape):
    with pytest.raises(ValueError, match="only uint8 of shape"):
        read(np.zeros(shape, np.uint8))


def test_a_hundred_videos_are_evaluated_with_different_seeds():
    rows = evaluation()
    assert len({row.video for row in rows}) == len({row.seed for row in rows}) == len(rows) == 100
    assert sum(row.held_out for row in rows) == 28
