import numpy as np
import pytest

from stepwise.description.errors import InvalidRequest
from stepwise.description.spec import prompt_tensor
from stepwise.families.sd3 import SD3
from stepwise.families.sdxl import SDXL
from stepwise.request.prepare import Preparer

PROMPT = "a large red star in the top left on a white background"


@pytest.fixture(scope="module")
def prepare(repository):
    return Preparer(SD3, repository / "sd3")


def words(**fields):
    return {name: np.asarray([value.encode()], object) for name, value in fields.items()}


def test_both_prompts_get_ids_for_every_encoder(prepare):
    ids, settings = prepare(words(prompt=PROMPT), 12.5)
    assert sorted(ids) == sorted(
        prompt_tensor(role, encoder, tensor)
        for role, encoder in SD3.encodings()
        for tensor in encoder.inputs
    )
    shapes = {name.rpartition("_ids")[1]: value.shape for name, value in ids.items()}
    assert shapes == {"_ids": (1, 20), "": (1, 1)}
    assert {value.dtype for value in ids.values()} == {np.dtype(np.int64)}
    assert not np.array_equal(ids["clip_l_ids"], ids["negative_clip_l_ids"])
    assert settings.arrived == 12.5
    assert settings.notes == ()


def test_a_missing_negative_prompt_is_the_empty_one(prepare):
    absent, _ = prepare(words(prompt=PROMPT), 0.0)
    empty, _ = prepare(words(prompt=PROMPT, negative_prompt=""), 0.0)
    assert all(np.array_equal(absent[name], empty[name]) for name in absent)


def test_a_long_prompt_is_cut_and_the_note_names_it_and_the_limits(prepare):
    _, settings = prepare(words(prompt=PROMPT, negative_prompt="blue " * 30), 0.0)
    note = "negative_prompt: cut to the first tokens that the text encoders read "
    assert settings.notes == (note + "(clip_l 20, clip_g 20, t5 20)",)


@pytest.mark.parametrize("fields", [{}, {"prompt": ""}, {"prompt": " \t\n"}])
def test_a_prompt_without_words_is_refused(prepare, fields):
    with pytest.raises(InvalidRequest, match=r"prompt: got .*; say what the picture should show"):
        prepare(words(**fields), 0.0)


def test_clip_skip_applies_only_to_the_prompt(families):
    fields = {**words(prompt=PROMPT), "clip_skip": np.asarray([1], np.int32)}
    fed, settings = Preparer(SDXL, families / "sdxl")(fields, 0.0)
    skips = {name: value.item() for name, value in fed.items() if name.endswith("clip_skip")}
    assert skips == {
        "clip_l_clip_skip": 1,
        "clip_g_clip_skip": 1,
        "negative_clip_l_clip_skip": 0,
        "negative_clip_g_clip_skip": 0,
    }
    assert settings.zero_negative


def test_a_note_on_the_bucket_comes_with_the_others(families):
    fields = words(prompt="star " * 30, bucket="3:2")
    _, settings = Preparer(SDXL, families / "sdxl")(fields, 0.0)
    bucket, cut = settings.notes
    assert bucket.startswith("bucket: the nearest to 3:2")
    assert cut.startswith("prompt: cut")
