from dataclasses import replace

import numpy as np
import pytest

from stepwise.description.errors import InvalidRequest
from stepwise.description.fields import text
from stepwise.description.manifest import Manifest, Sides
from stepwise.description.settings import Settings
from stepwise.families.sd3 import SD3
from stepwise.families.sdxl import SDXL
from stepwise.request.resolve import resolve

MANIFEST = Manifest(
    family="sd3",
    name="sd3",
    checkpoint="miniature",
    precision="fp32",
    latent_channels=16,
    vae_scale=8,
    sides=Sides(native=64, minimum=32, maximum=96, multiple=16),
    schedule={"num_train_timesteps": 1000, "shift": 3.0},
    tokens={"clip_l": 20, "clip_g": 20, "t5": 20},
    missing=(),
    graphs={},
    size=(64, 64),
    largest_clip_skip=2,
)


def inputs(**values):
    types = {"steps": np.int32, "guidance_scale": np.float32, "seed": np.int64}
    return {
        name: np.asarray([value], object if isinstance(value, bytes) else types.get(name, np.int32))
        for name, value in values.items()
    }


def settings(**values) -> Settings:
    return resolve(inputs(**values), SD3, MANIFEST, {"96x32": 4}, arrived=10.0)


def test_missing_settings_get_the_defaults():
    got = settings()
    assert (got.steps, got.guidance_scale, got.sampler) == (28, 7.0, "euler")
    assert got.latent_shape == (16, 8, 8)
    assert 0 <= got.seed < 2**32
    assert settings().seed != got.seed
    assert (got.preview_every, got.priority, got.client) == (0, 1, "")
    assert got.deadline == 10.0 + SD3.limits.deadline_ms[1] / 1000


def test_a_size_has_its_own_batch_cap_or_the_default():
    assert settings(height=32, width=96).batch_cap == 4
    assert settings().batch_cap == SD3.max_rows


def test_serving_settings_are_kept_with_the_request():
    got = settings(preview_every=5, deadline_ms=1500, priority=0, client=b"studio")
    assert (got.preview_every, got.deadline, got.priority, got.client) == (5, 11.5, 0, "studio")


def test_time_ids_default_to_the_size_of_the_picture():
    assert settings(height=32, width=96).time_ids == (32, 96, 0, 0, 32, 96)
    said = inputs(height=32, width=96)
    said["original_size"] = np.asarray([100, 200], np.int32)
    said["crop"] = np.asarray([7, 9], np.int32)
    got = resolve(said, SDXL, MANIFEST, {}, arrived=0.0)
    assert got.time_ids == (100, 200, 7, 9, 32, 96)


def test_only_a_missing_negative_prompt_is_zeros_and_only_if_the_checkpoint_sets_it():
    says_so = replace(MANIFEST, zero_negative=True)
    for manifest, fields, zero in (
        (says_so, {}, True),
        (says_so, {"negative_prompt": b""}, False),
        (MANIFEST, {}, False),
    ):
        assert resolve(inputs(**fields), SDXL, manifest, {}, 0.0).zero_negative is zero


def test_the_latents_follow_from_the_size():
    assert settings(height=32, width=96).latent_shape == (16, 4, 12)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("steps", 0, "1 to 100"),
        ("steps", -1, "1 to 100"),
        ("steps", 2**31 - 1, "1 to 100"),
        ("guidance_scale", float("nan"), "0 to 30"),
        ("guidance_scale", float("inf"), "0 to 30"),
        ("guidance_scale", -0.5, "0 to 30"),
        ("num_images", 0, "1 to 16"),
        ("clip_skip", -1, "0 to 2"),
        ("clip_skip", 3, "0 to 2"),
        ("height", 60, "multiples of 16 from 32 to 96; the nearest is 64"),
        ("height", 0, "the nearest is 32"),
        ("width", 4096, "the nearest is 96"),
        ("width", -64, "the nearest is 32"),
        ("sampler", b"karras++", "allowed are euler"),
        ("sampler", b"euler_trailing", "this checkpoint is a flow; use the sampler without it"),
        ("sampler", b"\xff", "not UTF-8"),
    ],
)
def test_the_error_of_a_bad_setting_names_allowed_values(field, value, allowed):
    with pytest.raises(InvalidRequest) as error:
        settings(**{field: value})
    assert str(error.value).startswith(f"{field}: got")
    assert allowed in str(error.value)


def test_minus_one_is_a_random_seed_and_other_negative_seeds_are_literal():
    drawn = {settings(seed=-1).seed for _ in range(8)} | {settings(seed=-1, num_images=16).seed}
    assert len(drawn) == 9
    assert all(0 <= seed < 2**32 for seed in drawn)
    assert [settings(seed=seed).seed for seed in (-2, -(2**63), 0)] == [-2, -(2**63), 0]


def test_the_last_seed_must_fit_64_bits():
    assert settings(seed=2**63 - 1).seed == 2**63 - 1
    with pytest.raises(InvalidRequest, match="seed: got 9223372036854775807 for 2 images"):
        settings(seed=2**63 - 1, num_images=2)


def test_the_error_of_invalid_utf8_names_the_byte():
    with pytest.raises(InvalidRequest, match="prompt: .*0xff at position 2"):
        text(inputs(prompt=b"ab\xff"), "prompt", "", 100)


def test_text_that_is_too_long_is_refused():
    with pytest.raises(InvalidRequest, match="prompt: got 101 bytes; at most 100"):
        text(inputs(prompt=b"a" * 101), "prompt", "", 100)
