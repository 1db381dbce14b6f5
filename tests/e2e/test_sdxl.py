"""SDXL's families match StableDiffusionXLPipeline while served next to each other and SD3."""

import urllib.request
from concurrent.futures import ThreadPoolExecutor

import diffusers as library
import numpy as np
import pytest
from PIL import Image

from benchmarks.harness.diffusers_baseline import Diffusers, psnr
from stepwise.client import Client, InvalidRequest, metadata, presets
from stepwise.client.cli.main import main
from tests.support.oracles import BETAS

FLOOR_DB = 40.0
SOLO_FLOOR_DB = 50.0
PROMPT = "a large red star in the top left on a white background"
NEGATIVE = "a small blue circle in the center on a black background"
# Settings with another name in diffusers.
NAMES = {"crop": "crops_coords_top_left"}
MICRO = {"original_size": (32, 48), "crop": (8, 0), "target_size": (64, 48)}
CASES = [
    {},
    {"negative_prompt": NEGATIVE},
    {"negative_prompt": ""},
    {"guidance_scale": 1.0},
    {"guidance_scale": 7.5, "negative_prompt": "gray " * 100},
    MICRO,
    {**MICRO, "negative_prompt": NEGATIVE},
    {"clip_skip": 1},
    {"clip_skip": 2, "negative_prompt": NEGATIVE},
    {"height": 40, "width": 96},
    {"height": 88, "width": 48, "clip_skip": 1},
]
SIZE = {"height": 64, "width": 64}


@pytest.fixture(scope="module")
def server(families_server):
    return families_server


@pytest.fixture(scope="module")
def client(server):
    return Client(server.grpc_url)


@pytest.fixture(scope="module")
def diffusers(checkpoints):
    return {name: Diffusers(checkpoints[name]) for name in ("sdxl", "sdxl_turbo")}


def reference(diffusers, seed, steps, settings, scheduler=None):
    call = {NAMES.get(name, name): value for name, value in {**SIZE, **settings}.items()}
    return diffusers.pictures([PROMPT], [seed], steps, scheduler, **call)[0]


def near(served, expected, floor=FLOOR_DB):
    closeness = psnr(served, expected)
    print(f"PSNR {closeness:.1f} dB, floor {floor} dB")
    assert served.shape == expected.shape
    assert closeness >= floor


@pytest.mark.parametrize("settings", CASES)
def test_euler_matches_diffusers(client, diffusers, settings):
    served = client.pictures("sdxl", PROMPT, steps=20, seed=7, **settings)[0]
    near(served.image, reference(diffusers["sdxl"], 7, 20, {"guidance_scale": 5.0, **settings}))


@pytest.mark.parametrize("settings", CASES[:2])
def test_dpmpp_2m_karras_matches_diffusers(client, diffusers, settings):
    named = {"sampler": "dpmpp_2m_karras", **settings}
    served = client.pictures("sdxl", PROMPT, steps=20, seed=8, **named)[0]
    scheduler = library.DPMSolverMultistepScheduler(**BETAS, steps_offset=1, use_karras_sigmas=True)
    settings = {"guidance_scale": 5.0, **settings}
    near(served.image, reference(diffusers["sdxl"], 8, 20, settings, scheduler))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_turbo_matches_diffusers(client, diffusers, steps):
    served = client.pictures("sdxl_turbo", PROMPT, steps=steps, seed=9)[0]
    near(served.image, reference(diffusers["sdxl_turbo"], 9, steps, {"guidance_scale": 0.0}))


def test_turbo_allows_few_steps_and_defaults_to_one(client):
    assert client.pictures("sdxl_turbo", PROMPT)[0].steps == 1
    with pytest.raises(InvalidRequest, match="steps: got 5; allowed are 1 to 4"):
        client.pictures("sdxl_turbo", PROMPT, steps=5)


@pytest.mark.parametrize(
    "settings", [{"negative_prompt": ""}, {"clip_skip": 1}, MICRO], ids=["empty", "skip", "micro"]
)
def test_every_setting_changes_the_picture(client, settings):
    """Includes an empty negative prompt, which the miniature treats much like a missing one."""
    plain, other = (
        client.pictures("sdxl", PROMPT, steps=12, seed=3, guidance_scale=15.0, **said)[0].image
        for said in ({}, settings)
    )
    print(f"PSNR {psnr(plain, other):.1f} dB, ceiling {SOLO_FLOOR_DB} dB")
    assert psnr(plain, other) < SOLO_FLOOR_DB


def test_a_picture_is_as_large_as_its_bucket(client):
    def draw(**size):
        return client.pictures("sdxl", PROMPT, steps=2, seed=1, **size)[0]

    named = draw(bucket="48x80")
    assert named.image.shape == (80, 48, 3)
    assert named.notes == ()
    assert psnr(named.image, draw(height=80, width=48).image) >= SOLO_FLOOR_DB
    ratio = draw(bucket="3:2")
    assert ratio.image.shape == (48, 80, 3)
    assert ratio.notes == ("bucket: the nearest to 3:2 is 80x48 (width x height)",)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"bucket": "80x80"},
            "bucket: got '80x80'; allowed are, as width x height in pixels, 48x80",
        ),
        ({"bucket": "wide"}, "or an aspect ratio of width to height such as 3:2"),
        ({"bucket": "0:1"}, "bucket: got '0:1'"),
        ({"height": 80}, "height and width: got 64x80; .*; the nearest is 56x72"),
        ({"bucket": "48x80", "height": 64, "width": 64}, "leave one of them out"),
        ({"clip_skip": 3}, "clip_skip: got 3; allowed are 0 to 2"),
        ({"crop": (-1, 0)}, "crop: got -1; allowed are 0 to 16384"),
    ],
)
def test_an_invalid_setting_is_named(client, settings, says):
    with pytest.raises(InvalidRequest, match=says):
        client.pictures("sdxl", PROMPT, **settings)


def test_a_preset_fills_in_missing_options(server, tmp_path, capsys):
    url, paths = ["--url", server.grpc_url], [tmp_path / "first.png", tmp_path / "again.png"]
    asked = ["--preset", "helloworld-xl", "--steps", "12", "--bucket", "48x80"]
    assert main(["generate", "sdxl", PROMPT, *url, *asked, "--output", str(paths[0])]) == 0
    made = metadata.load(paths[0])
    advised = dict(presets.load("helloworld-xl").settings)
    assert {name: made[name] for name in advised} == {**advised, "steps": "12"}
    assert main(["repeat", str(paths[0]), *url, "--output", str(paths[1])]) == 0
    near(*(np.asarray(Image.open(path)) for path in paths), SOLO_FLOOR_DB)
    assert main(["generate", "sdxl_turbo", PROMPT, *url, *asked]) == 1
    assert (
        "preset: got 'helloworld-xl', which is for sdxl; for sdxl_turbo there are sdxl-turbo"
        in capsys.readouterr().err
    )


def test_families_are_served_concurrently(client, server):
    def draw(family, seed):
        steps = {"sdxl_turbo": 4}.get(family, 12)
        return client.pictures(family, PROMPT, seed=seed, steps=steps)[0]

    asked = [(family, seed) for seed in range(4) for family in ("sd3", "sdxl", "sdxl_turbo")]
    alone = [draw(*one) for one in asked]
    with ThreadPoolExecutor(len(asked)) as threads:
        together = list(threads.map(lambda one: draw(*one), asked))
    for one, other in zip(together, alone, strict=True):
        near(one.image, other.image, SOLO_FLOOR_DB)
    with urllib.request.urlopen(server.metrics_url, timeout=5) as page:
        lines = page.read().decode().splitlines()
    for family in ("sd3", "sdxl", "sdxl_turbo"):
        found = [line for line in lines if f'pipeline="{family}"' in line]
        assert any(line.startswith("stepwise_steps_total") for line in found), family
        assert any('outcome="done"' in line for line in found), family
