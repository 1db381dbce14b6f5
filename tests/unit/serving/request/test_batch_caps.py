import json
import os
from dataclasses import replace

import pytest

from stepwise.description.manifest import VideoLayout
from stepwise.families.easyanimate import EASYANIMATE
from stepwise.families.sd3 import SD3
from stepwise.families.sdxl import SDXL
from stepwise.request.batch_caps import FILE, read
from tests.support.batching import LAYOUT
from tests.unit.serving.request.test_settings import MANIFEST
from tests.unit.serving.request.test_sizes import BUCKETED

VIDEOS = replace(MANIFEST, video=LAYOUT)


def written(folder, caps):
    (folder / FILE).write_text(caps if isinstance(caps, str) else json.dumps(caps))
    return folder


@pytest.mark.parametrize(
    ("family", "manifest", "caps"),
    [
        (SD3, MANIFEST, {"64x64": 1, "96x32": 16}),
        (SDXL, BUCKETED, {"832x1248": 4}),
        (EASYANIMATE, VIDEOS, {"49x64x32": 2, "1x64x64": 1}),
    ],
)
def test_caps_of_served_sizes_are_read(tmp_path, family, manifest, caps):
    assert isinstance(VIDEOS.video, VideoLayout)
    assert read(written(tmp_path, caps), family, manifest) == caps


def test_without_a_file_there_are_no_caps(tmp_path):
    assert read(tmp_path, SD3, MANIFEST) == {}


@pytest.mark.parametrize(
    ("family", "manifest", "size"),
    [
        *(
            (SD3, MANIFEST, size)
            for size in ("64 x 64", "64X64", "064x64", "64", "64x64x64", "rows")
        ),
        *(
            (SD3, MANIFEST, size)
            for size in ("48x40", "16x64", "112x64", "", "64x-64", "\u0664x64")
        ),
        *((SDXL, BUCKETED, size) for size in ("1248x800", "1024x1032")),
        *((EASYANIMATE, VIDEOS, size) for size in ("64x64", "48x64x64", "0x64x64", "64x64x49")),
    ],
)
def test_an_unserved_or_misspelled_size_is_refused(tmp_path, family, manifest, size):
    with pytest.raises(
        ValueError, match=r"caps.json: got the size .* not served; .*, such as \d+x"
    ):
        read(written(tmp_path, {size: 1}), family, manifest)


@pytest.mark.parametrize("rows", [0, 17, 1.0, "4", None, True])
def test_other_numbers_of_rows_are_refused(tmp_path, rows):
    with pytest.raises(ValueError, match="rows for 64x64; allowed are 1 to 16"):
        read(written(tmp_path, {"64x64": rows}), SD3, MANIFEST)


def test_a_file_that_no_program_should_read_is_refused(tmp_path):
    os.mkfifo(tmp_path / FILE)
    with pytest.raises(ValueError, match="got no JSON object .*caps.json is a FIFO"):
        read(tmp_path, SD3, MANIFEST)


@pytest.mark.parametrize("text", ["{", "3", "null", "[" * 100_000])
def test_a_file_that_is_no_object_is_refused(tmp_path, text):
    with pytest.raises(ValueError, match="got no JSON object"):
        read(written(tmp_path, text), SD3, MANIFEST)
