import numpy as np
import pytest
from PIL import Image

from stepwise.client import contact_sheet
from tests.unit.client.test_video import slices


@pytest.mark.parametrize(
    ("frames", "wanted"),
    [(1, (0,)), (5, (0, 1, 2, 3, 4)), (9, (0, 1, 2, 3, 5, 6, 7, 8)), (145, (0, 21, 41, 62))],
)
def test_key_frames_are_evenly_spaced_from_the_first_to_the_last(frames, wanted):
    keys = contact_sheet.keys(frames)
    assert keys[: len(wanted)] == wanted
    assert (keys[0], keys[-1]) == (0, frames - 1)
    assert len(keys) == min(frames, 8)


@pytest.mark.parametrize(("count", "size"), [(1, (16, 12)), (5, (76, 28)), (49, (76, 28))])
def test_a_sheet_shows_key_frames_in_rows_of_four(tmp_path, count, size):
    frames = np.random.default_rng(0).integers(0, 256, (count, 12, 16, 3), np.uint8)
    kept = {}
    passed = list(contact_sheet.keeping(slices(frames), count, kept))
    assert np.array_equal(np.concatenate([event.frames for event in passed]), frames)
    contact_sheet.save(kept, tmp_path / "sheet.png")
    made = Image.open(tmp_path / "sheet.png")
    assert made.size == size
    for place, key in enumerate(contact_sheet.keys(count)):
        row, column = divmod(place, 4)
        shown = np.asarray(made)[16 * row :, 20 * column :][:12, :16]
        assert np.array_equal(shown, frames[key])
