"""The scorer reads drawn pictures, even slightly damaged ones, and rejects all others."""

import math
import random

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image, ImageDraw
from scipy import ndimage

from miniatures.captions import BACKGROUNDS, SCENES, Scene
from miniatures.scenes import BACKGROUND_RGB, COLOUR_RGB, draw
from miniatures.score import Reading, read, score
from tests.conftest import further
from tests.support.paths import ROOT

VAE = ROOT / "miniatures" / "sd3" / "vae"
SHARP = Scene("large", "red", "circle", "in the center", "white")


@pytest.fixture(scope="module", params=[1, further(5)])
def drawn(request):
    rng = random.Random(5)
    return [(scene, draw(scene, rng)) for scene in SCENES for _ in range(request.param)]


def blurred(picture):
    return ndimage.gaussian_filter(picture.astype(float), (0.7, 0.7, 0)).round().astype(np.uint8)


def noisy(picture):
    noise = np.random.default_rng(int(picture.sum())).normal(0, 6, picture.shape)
    return np.clip(picture + noise, 0, 255).round().astype(np.uint8)


@torch.no_grad()
def decoded(pictures):
    vae = AutoencoderKL.from_pretrained(VAE).eval()
    batches = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).div(127.5).sub(1).split(64)
    out = torch.cat([vae.decode(vae.encode(batch).latent_dist.mean).sample for batch in batches])
    return out.add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def check(name, scenes, pictures, floor):
    rights = [all(score(*pair).values()) for pair in zip(pictures, scenes, strict=True)]
    share = np.mean(rights)
    print(f"{name}: {100 * share:.2f}% of {len(rights)} read correctly, floor {100 * floor}%")
    assert share >= floor


@pytest.mark.parametrize(
    ("name", "damage", "floor"),
    [("drawn", np.asarray, 0.999), ("blurred", blurred, 0.99), ("noisy", noisy, 0.99)],
)
def test_drawn_scenes_are_read(drawn, name, damage, floor):
    check(name, [scene for scene, _ in drawn], [damage(picture) for _, picture in drawn], floor)


def test_scenes_are_read_after_the_autoencoder(drawn):
    scenes, pictures = zip(*drawn[:: len(drawn) // len(SCENES)], strict=True)
    check("autoencoded", scenes, decoded(pictures), 0.99)


def test_a_score_names_wrong_features():
    picture = draw(Scene("small", "blue", "circle", "in the center", "gray"), random.Random(0))
    right = {"shape": True, "position": True}
    assert score(picture, SHARP) == {"size": False, "colour": False, "background": False} | right


def noise(seed):
    """Uniform noise, smoothed by up to 8 pixels and stretched back to the full range."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(64, 64, 3)), (seed % 9, seed % 9, 0))
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    return (255 * smooth).round().astype(np.uint8)


def test_noise_is_unreadable():
    pictures = [noise(seed) for seed in range(500)]
    readable = [read(picture).shape is not None for picture in pictures]
    print(f"{sum(readable)} of {len(readable)} noise pictures have a shape, ceiling 0")
    assert not any(readable)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_an_empty_picture_has_a_background_and_nothing_else(background):
    picture = np.full((64, 64, 3), BACKGROUND_RGB[background], np.uint8)
    assert read(picture) == Reading(background=background)


def polygon(corners, colour=COLOUR_RGB["red"], background=(255, 255, 255)):
    """A polygon with corners in pixels, antialiased."""
    canvas = Image.new("RGB", (512, 512), background)
    ImageDraw.Draw(canvas).polygon([(8 * x, 8 * y) for x, y in corners], fill=colour)
    return np.asarray(canvas.resize((64, 64), Image.Resampling.BOX))


def regular(corners, radius, rotation=-0.25, x=32.0, y=32.0):
    angles = [2 * math.pi * (rotation + i / corners) for i in range(corners)]
    return [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]


def blob(radius):
    """A disc that fades out over its whole width."""
    y, x = np.mgrid[:64, :64] - 31.5
    alpha = np.exp(-(x**2 + y**2) / (2 * (radius / 1.5) ** 2))[..., None]
    return (255 + alpha * (np.array(COLOUR_RGB["red"]) - 255)).round().astype(np.uint8)


def ring():
    y, x = np.mgrid[:64, :64] - 31.5
    inside = (np.hypot(x, y) < 13.5) & (np.hypot(x, y) > 7)
    return np.where(inside[..., None], COLOUR_RGB["red"], 255).astype(np.uint8)


def half_erased(shape):
    picture = draw(Scene("large", "red", shape, "in the center", "white"), random.Random(0)).copy()
    picture[:, 32:] = 255
    return picture


def two(other):
    picture = polygon(regular(64, 7.5, x=19, y=19))
    second = polygon(regular(64, 7.5, x=45, y=45), COLOUR_RGB[other])
    return np.minimum(picture, second)


WRONG = {
    "two shapes of one colour": two("red"),
    "two shapes of two colours": two("blue"),
    "half a circle": half_erased("circle"),
    "half a square": half_erased("square"),
    "half a triangle": half_erased("triangle"),
    "half a star": half_erased("star"),
    "small pentagon": polygon(regular(5, 8.5)),
    "large pentagon": polygon(regular(5, 15)),
    "square on its corner": polygon(regular(4, 15)),
    "triangle upside down": polygon(regular(3, 15, rotation=0.25)),
    "small blob": blob(7.5),
    "large blob": blob(13.5),
    "ring": ring(),
    "stripe": polygon([(0, 28), (64, 28), (64, 36), (0, 36)]),
}


@pytest.mark.parametrize("name", WRONG)
def test_only_a_single_sharp_shape_is_read(name):
    assert read(WRONG[name]).shape is None


def test_a_colour_halfway_between_two_has_no_name():
    for one, other in (("red", "orange"), ("orange", "yellow"), ("blue", "purple")):
        colour = tuple(int(v) for v in np.mean([COLOUR_RGB[one], COLOUR_RGB[other]], axis=0))
        reading = read(polygon(regular(64, 13.5), colour))
        assert (reading.shape, reading.colour) == ("circle", None), f"{one} and {other}"


def test_a_size_or_position_halfway_between_two_has_no_name():
    assert read(polygon(regular(64, 10.1))) == Reading(
        None, "red", "circle", "in the center", "white"
    )
    assert read(polygon(regular(64, 7.5, x=25.5, y=25.5))).position is None


def test_other_backgrounds_have_no_name():
    reading = read(polygon(regular(64, 13.5), background=(190, 190, 190)))
    assert (reading.shape, reading.background) == (None, None)


def test_another_size_or_dtype_is_refused():
    with pytest.raises(ValueError, match=r"uint8 of shape \(32, 64, 3\)"):
        read(np.zeros((32, 64, 3), np.uint8))
    with pytest.raises(ValueError, match="float32 of shape"):
        read(np.zeros((64, 64, 3), np.float32))
