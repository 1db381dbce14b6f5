"""Served pictures match those of diffusers."""

import pytest

from benchmarks.harness.diffusers_baseline import psnr
from demo import PIPELINES, PROMPTS
from miniatures.captions import BY_CAPTION
from miniatures.score import score

FLOOR_DB = 40.0
SOLO_FLOOR_DB = 50.0

CASES = [
    ("a large red star in the top left on a white background", {"seed": 7, "steps": 20}),
    ("a small blue circle in the center on a black background", {"seed": 1, "steps": 20}),
    (
        "a large green triangle in the bottom right on a gray background",
        {"seed": 2, "steps": 20, "negative_prompt": "a small red circle in the center"},
    ),
    ("a small yellow square in the top right on a black background", {"seed": 3, "steps": 1}),
    ("a large purple circle in the bottom left on a white background", {"seed": 4, "steps": 2}),
    (
        "a small orange star in the center on a gray background",
        {"seed": 5, "steps": 12, "guidance_scale": 1.0},
    ),
    (
        "a large blue square in the top left on a gray background",
        {"seed": 6, "steps": 12, "guidance_scale": 0.0},
    ),
    (
        "a large red circle in the center on a white background",
        {"seed": 2**40 + 7, "steps": 9, "guidance_scale": 2.5},
    ),
    ("something, with Words 🎉 it has never seen", {"seed": 8, "steps": 6}),
    (
        "a small green star in the bottom left on a black background",
        {"seed": 9, "steps": 28, "height": 96, "width": 64},
    ),
    (
        "a large yellow triangle in the top right on a gray background, " * 20,
        {
            "seed": 10,
            "steps": 5,
            "clip_skip": 1,
            "height": 48,
            "width": 80,
            "negative_prompt": "gray " * 100,
        },
    ),
]


@pytest.mark.parametrize(("prompt", "settings"), CASES)
def test_a_served_picture_matches_diffusers(client, diffusers, prompt, settings):
    served = client.pictures("sd3", prompt, **settings)[0].image
    call = {"guidance_scale": 7.0, "height": 64, "width": 64, **settings}
    seed, steps = call.pop("seed"), call.pop("steps")
    reference = diffusers.pictures([prompt], [seed], steps, **call)[0]
    closeness = psnr(served, reference)
    print(f"PSNR {closeness:.1f} dB, floor {FLOOR_DB} dB")
    assert served.shape == reference.shape
    assert closeness >= FLOOR_DB


def test_a_picture_shows_its_prompt(client):
    """One easy caption per shape; ``make quality`` scores the full lists."""
    _, settings = PIPELINES["sd3"]
    for seed, prompt in enumerate(PROMPTS, 1):
        picture = client.pictures("sd3", prompt, seed=seed, **settings)[0].image
        assert all(score(picture, BY_CAPTION[prompt]).values()), prompt


def test_several_images_arrive_one_by_one_with_consecutive_seeds(client):
    prompt = CASES[0][0]
    results = client.pictures("sd3", prompt, steps=4, seed=20, num_images=3)
    assert [(event.index, event.seed) for event in results] == [(0, 20), (1, 21), (2, 22)]
    for event in results:
        alone = client.pictures("sd3", prompt, steps=4, seed=event.seed)[0].image
        closeness = psnr(event.image, alone)
        print(f"PSNR against its own run {closeness:.1f} dB, floor {SOLO_FLOOR_DB} dB")
        assert closeness >= SOLO_FLOOR_DB


def test_a_missing_seed_is_drawn_and_returned(client):
    first, second = (client.pictures("sd3", CASES[0][0], steps=2)[0] for _ in range(2))
    assert first.seed != second.seed
    again = client.pictures("sd3", CASES[0][0], steps=2, seed=first.seed)[0]
    assert psnr(again.image, first.image) >= SOLO_FLOOR_DB


def test_guidance_and_the_negative_prompt_change_the_picture(client):
    prompt, settings = CASES[0][0], {"steps": 8, "seed": 3}
    plain = client.pictures("sd3", prompt, guidance_scale=3.0, **settings)[0].image
    strong = client.pictures("sd3", prompt, guidance_scale=6.0, **settings)[0].image
    negative = "a small blue circle in the center on a black background"
    steered = client.pictures(
        "sd3", prompt, guidance_scale=3.0, negative_prompt=negative, **settings
    )[0].image
    for other in (strong, steered):
        closeness = psnr(other, plain)
        print(f"PSNR {closeness:.1f} dB, ceiling 40 dB")
        assert closeness < 40
