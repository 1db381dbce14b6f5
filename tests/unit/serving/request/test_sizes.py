from dataclasses import replace

import numpy as np
import pytest

from stepwise.description.errors import InvalidRequest
from stepwise.description.manifest import Sides
from stepwise.families.sdxl import SDXL
from stepwise.request.sizes import picture_size
from tests.unit.serving.request.test_settings import MANIFEST

SIDES = Sides(native=1024, minimum=640, maximum=1632, multiple=8)
BUCKETED = replace(MANIFEST, sides=SIDES, size=(1024, 1024), buckets=SDXL.buckets)


def size(**values):
    fields = {
        name: np.asarray([value.encode()] if isinstance(value, str) else [value])
        for name, value in values.items()
    }
    return picture_size(fields, BUCKETED)


def test_a_picture_is_the_native_square_by_default():
    assert size() == ((1024, 1024), ())


def test_every_bucket_can_be_given_by_name_or_by_its_sides():
    for height, width in SDXL.buckets:
        assert size(bucket=f"{width}x{height}") == ((height, width), ())
        assert size(height=height, width=width) == ((height, width), ())
        assert size(bucket=f"{width}x{height}", height=height, width=width)[0] == (height, width)


@pytest.mark.parametrize(
    ("ratio", "nearest"),
    [
        ("3:2", (832, 1248)),
        ("2:3", (1248, 832)),
        ("1:1", (1024, 1024)),
        ("16:9", (768, 1360)),
        ("9:16", (1360, 768)),
        ("2.55:1", (640, 1632)),
        ("1:100", (1632, 640)),
    ],
)
def test_an_aspect_ratio_gets_the_nearest_bucket_and_a_note(ratio, nearest):
    got, (note,) = size(bucket=ratio)
    assert got == nearest
    assert note == f"bucket: the nearest to {ratio} is {got[1]}x{got[0]} (width x height)"


@pytest.mark.parametrize("bucket", ["832x1249", "x", "3:0", "0:3", "-3:2", "1e3:2", "３:２ "])
def test_the_error_of_an_unknown_bucket_lists_the_buckets(bucket):
    with pytest.raises(InvalidRequest, match="bucket: got .*as width x height.*832x1248, 896x1152"):
        size(bucket=bucket)


@pytest.mark.parametrize(("height", "width"), [(1024, 1032), (0, 0), (-8, 1024), (2**31 - 1, 8)])
def test_the_error_of_another_size_names_the_nearest_bucket(height, width):
    with pytest.raises(InvalidRequest, match=r"height and width: got .*the nearest is \d+x\d+"):
        size(height=height, width=width)


def test_a_size_that_contradicts_its_bucket_is_refused():
    with pytest.raises(InvalidRequest, match="bucket: got '832x1248'.*leave one of them out"):
        size(bucket="832x1248", height=1024, width=1024)
