from dataclasses import replace

import numpy as np
import pytest

from stepwise.families.sdxl import SDXL
from stepwise.request.resolve import resolve
from tests.unit.serving.request.test_settings import MANIFEST

EMBEDDINGS = {
    f"{role}{name}": np.full((1, *shape), value, np.float32)
    for role, offset in (("", 0), ("negative_", 10))
    for name, shape, value in (
        ("clip_l_hidden_states", (5, 3), 1 + offset),
        ("clip_g_hidden_states", (5, 4), 2 + offset),
        ("clip_g_pooled", (4,), 3 + offset),
    )
}
SETTINGS = resolve({}, SDXL, MANIFEST, {}, arrived=0.0)


def test_embeddings_of_both_encoders_are_joined_and_one_is_pooled():
    negative, positive = SDXL.row_conditioning(EMBEDDINGS, SETTINGS)
    for row, offset in ((positive, 0), (negative, 10)):
        assert row["encoder_hidden_states"].shape == (5, 7)
        assert row["encoder_hidden_states"][0].tolist() == [1 + offset] * 3 + [2 + offset] * 4
        assert row["text_embeds"].tolist() == [3 + offset] * 4
        assert row["time_ids"].tolist() == [64, 64, 0, 0, 64, 64]


def test_a_missing_negative_prompt_is_zeros_and_the_prompt_is_not():
    embeddings = EMBEDDINGS | {"negative_clip_g_pooled": np.full((1, 4), np.nan)}
    settings = replace(SETTINGS, zero_negative=True)
    negative, positive = SDXL.row_conditioning(embeddings, settings)
    assert not negative["encoder_hidden_states"].any()
    assert not negative["text_embeds"].any()
    assert negative["time_ids"].tolist() == positive["time_ids"].tolist()
    assert positive["encoder_hidden_states"].all()


@pytest.mark.parametrize(("guidance_scale", "rows"), [(0.0, 1), (1.0, 1), (1.1, 2)])
def test_a_picture_takes_two_rows_with_guidance_and_one_without(guidance_scale, rows):
    settings = replace(SETTINGS, guidance_scale=guidance_scale)
    assert len(SDXL.row_conditioning(EMBEDDINGS, settings)) == rows
