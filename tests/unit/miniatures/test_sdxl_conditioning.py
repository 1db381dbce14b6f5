"""SDXL's size conditioning has an effect on the trained miniature too."""

import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from tests.support.paths import ROOT

CHECKPOINT = ROOT / "miniatures" / "sdxl"
CAPTION = "a small blue star in the top left on a gray background"
# Mean absolute difference of two pictures, in levels of 0 to 255.
FLOOR = 0.1


@pytest.fixture(scope="module")
def pipeline():
    return StableDiffusionXLPipeline.from_pretrained(CHECKPOINT, local_files_only=True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"crops_coords_top_left": (0, 0)}, {"crops_coords_top_left": (8, 8)}),
        ({"original_size": (64, 64)}, {"original_size": (32, 32)}),
    ],
)
def test_size_conditioning_changes_the_picture(pipeline, one, other):
    pictures = [
        pipeline(
            CAPTION,
            num_inference_steps=4,
            generator=torch.Generator().manual_seed(0),
            output_type="pt",
            **arguments,
        ).images
        for arguments in (one, other)
    ]
    difference = 255 * (pictures[0] - pictures[1]).abs().mean().item()
    print(f"{one} and {other}: pictures differ by {difference:.2f} levels, floor {FLOOR}")
    assert difference > FLOOR
