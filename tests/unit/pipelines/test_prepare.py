import numpy as np
import pytest

from pipelines import SD3
from pipelines.errors import InvalidRequest
from pipelines.prepare import Preparer

PROMPT = "a large red star in the top left on a white background"


@pytest.fixture(scope="module")
def prepare(repository):
    return Preparer(SD3, repository / "sd3_prepare")


def words(**fields):
    return {name: np.asarray([value.encode()], object) for name, value in fields.items()}


def test_both_prompts_get_ids_for_every_encoder(prepare):
    ids, settings = prepare(words(prompt=PROMPT), 12.5)
    assert sorted(ids) == sorted(tensor.name for tensor in SD3.ids)
    assert {value.shape for value in ids.values()} == {(1, 20)}
    assert {value.dtype for value in ids.values()} == {np.dtype(np.int64)}
    assert not np.array_equal(ids["clip_l_ids"], ids["negative_clip_l_ids"])
    assert settings.arrived == 12.5
    assert settings.notes == ()


def test_an_absent_negative_prompt_is_the_empty_one(prepare):
    absent, _ = prepare(words(prompt=PROMPT), 0.0)
    empty, _ = prepare(words(prompt=PROMPT, negative_prompt=""), 0.0)
    assert all(np.array_equal(absent[name], empty[name]) for name in absent)


def test_a_long_prompt_is_cut_and_the_note_says_which_one_and_where(prepare):
    _, settings = prepare(words(prompt=PROMPT, negative_prompt="blue " * 30), 0.0)
    note = "negative_prompt: cut to the first tokens that the text encoders read "
    assert settings.notes == (note + "(clip_l 20, clip_g 20, t5 20)",)


@pytest.mark.parametrize("fields", [{}, {"prompt": ""}, {"prompt": " \t\n"}])
def test_a_prompt_without_words_is_refused(prepare, fields):
    with pytest.raises(InvalidRequest, match=r"prompt: got .*; say what the picture should show"):
        prepare(words(**fields), 0.0)
