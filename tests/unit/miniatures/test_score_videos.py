"""The scorer reads drawn clips, also when damaged a little, and refuses all others."""

import random

import numpy as np
import pytest
from scipy import ndimage

from miniatures.clips import CLIPS, FRAMES, SIDE, Clip, draw, evaluation
from miniatures.score_clips import Reading, read, score
from tests.conftest import further

ASKED = Clip("red", "circle", "left", "white")


@pytest.fixture(scope="module", params=[3, further(1)])
def drawn(request):
    rng = random.Random(5)
    return [(clip, draw(clip, rng)) for clip in CLIPS[:: request.param]]


def blurred(clip):
    return ndimage.gaussian_filter(clip.astype(float), (0, 0.7, 0.7, 0)).round().astype(np.uint8)


def noisy(clip):
    noise = np.random.default_rng(int(clip.sum())).normal(0, 6, clip.shape)
    return np.clip(clip + noise, 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("damage", [np.asarray, blurred, noisy])
def test_drawn_clips_are_read(drawn, damage):
    share = np.mean([all(score(damage(made), clip).values()) for clip, made in drawn])
    print(f"{100 * share:.1f}% of {len(drawn)} read right, floor 99%")
    assert share >= 0.99


def test_a_clip_backwards_goes_the_other_way():
    assert read(draw(ASKED, random.Random(1))[::-1]).direction == "right"


def test_one_frame_of_another_clip_makes_what_differs_unreadable():
    clip = draw(ASKED, random.Random(1))
    clip[8] = draw(Clip("blue", "square", "left", "white"), random.Random(1))[8]
    assert read(clip) == Reading(None, None, "left", "white")


def test_one_empty_frame_leaves_the_background_alone():
    clip = draw(ASKED, random.Random(1))
    clip[3] = 255
    assert read(clip) == Reading(background="white")


@pytest.mark.parametrize("order", [[0] * FRAMES, [0, 16] * 8 + [0], [*range(16, -1, -2)] * 2])
def test_what_stands_still_or_jumps_goes_nowhere(order):
    clip = draw(ASKED, random.Random(1))[order[:FRAMES]]
    assert read(clip) == Reading("red", "circle", None, "white")


def test_what_goes_aslant_goes_nowhere():
    clip = draw(ASKED, random.Random(1))
    slanted = np.stack([np.roll(frame, place - 8, axis=0) for place, frame in enumerate(clip)])
    assert read(slanted).direction is None


def test_noise_shows_nothing():
    generator = np.random.default_rng(0)
    for _ in range(20):
        clip = generator.integers(0, 256, (FRAMES, SIDE, SIDE, 3), np.uint8)
        assert read(clip) in (Reading(), Reading(background="gray"))


@pytest.mark.parametrize("shape", [(16, 48, 48, 3), (17, 64, 64, 3), (48, 48, 3)])
def test_other_sizes_are_refused(shape):
    with pytest.raises(ValueError, match="only uint8 of shape"):
        read(np.zeros(shape, np.uint8))


def test_a_hundred_clips_are_evaluated_and_no_seed_comes_twice():
    rows = evaluation()
    assert len({row.clip for row in rows}) == len({row.seed for row in rows}) == len(rows) == 100
    assert sum(row.held_out for row in rows) == 28
