import numpy as np
import pytest

from stepwise.families.sd3 import SD3
from stepwise.request.events import Event
from stepwise.request.response import response, shrink

EVENT = Event("progress", 1, 3, 20, -7, 1.5, 30.25, 2.5, ("a note",))


def test_a_response_has_every_tensor_of_the_pipeline_with_its_type():
    types = {"UINT8": np.uint8, "INT32": np.int32, "INT64": np.int64, "FP32": np.float32}
    answer = response(SD3, EVENT, np.zeros((16, 24, 3), np.uint8))
    assert list(answer) == [tensor.name for tensor in SD3.response]
    for tensor in SD3.response:
        assert answer[tensor.name].dtype == types.get(tensor.dtype, object), tensor.name
    assert answer["image"].shape == (16, 24, 3)
    assert answer["timings_ms"].tolist() == [1.5, 30.25]


def test_progress_without_a_picture_has_an_empty_one():
    assert response(SD3, EVENT, None)["image"].shape == (0, 0, 3)


@pytest.mark.parametrize(
    ("side", "other", "small"),
    [(128, 128, (32, 32)), (64, 96, (16, 24)), (18, 32, (9, 16)), (17, 64, (17, 64)),
     (8, 8, (8, 8)), (4, 12, (4, 12))],
)  # fmt: skip
def test_a_preview_is_as_small_as_decoders_support(side, other, small):
    latents = np.random.default_rng(0).normal(size=(4, side, other)).astype(np.float32)
    got = shrink(latents)
    assert got.shape == (4, *small)
    assert got.dtype == np.float32
    assert got.mean() == pytest.approx(latents.mean(), abs=1e-6)
