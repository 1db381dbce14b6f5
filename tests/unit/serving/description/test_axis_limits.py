import pytest

from stepwise.description.axis_limits import axes, problem

DIMS = {
    "latents": ["batch", 16, "height", "width"],
    "levels": ["batch", 3, "8*height", "8*width"],
    "first": [1],
}
LARGEST = [{"batch": 4, "height": 12, "width": 6}, {"batch": 4, "height": 6, "width": 12}]


def shapes(batch, height, width):
    return {
        "latents": (batch, 16, height, width),
        "levels": (batch, 3, 8 * height, 8 * width),
        "first": (1,),
    }


def test_axes_are_named_once():
    assert axes(DIMS) == {"batch", "height", "width"}


@pytest.mark.parametrize("sizes", [(1, 1, 1), (4, 12, 6), (4, 6, 12), (3, 6, 6)])
def test_sizes_up_to_the_largest_are_allowed(sizes):
    assert problem(DIMS, shapes(*sizes), LARGEST) is None


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ((4096, 1, 1), "latents: got [4096, 16, 1, 1], where batch is 4096; allowed are 1 to 4"),
        ((0, 1, 1), "latents: got [0, 16, 1, 1], where batch is 0; allowed are 1 to 4"),
        ((1, 13, 1), "latents: got [1, 16, 13, 1], where height is 13; allowed are 1 to 12"),
        (
            (4, 7, 12),
            "got batch 4, height 7, width 12; allowed are at most batch 4, height 12, width 6 or "
            "batch 4, height 6, width 12",
        ),
    ],
)
def test_larger_or_empty_tensors_are_not_allowed(sizes, says):
    assert problem(DIMS, shapes(*sizes), LARGEST) == says


def test_a_single_allowed_size_is_named():
    found = problem({"latents": ["slice"]}, {"latents": [2]}, [{"slice": 1}])
    assert found == "latents: got [2], where slice is 2; allowed is 1"


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((1, 3, 104, 8), "where 8*height is 104; allowed are multiples of 8 from 8 to 96"),
        ((1, 3, 12, 8), "where 8*height is 12; allowed are multiples of 8 from 8 to 96"),
        ((1, 3, 16, 8), "where 8*height is 16, but 8 by other inputs"),
        ((2, 3, 8, 8), "where batch is 2, but 1 by other inputs"),
    ],
)
def test_an_axis_has_one_size_in_all_tensors(shape, says):
    given = {**shapes(1, 1, 1), "levels": shape}
    assert problem(DIMS, given, LARGEST) == f"levels: got {list(shape)}, {says}"
