"""The local pipeline gives the same outputs as a server of the same repository."""

import numpy as np
import pytest

from stepwise.client import Client
from stepwise.description.errors import InvalidRequest
from stepwise.local import LocalPipeline

PROMPT = "a large red star in the top left on a white background"
# Other rows in a batch may change rounding by one level.
CEILING = 1
CASES = {
    "sd3": {"steps": 5, "guidance_scale": 3.0, "num_images": 3, "height": 48, "width": 96},
    "sdxl": {"steps": 4, "bucket": "2:3", "clip_skip": 1, "negative_prompt": "blue"},
    "sdxl_turbo": {"steps": 2, "num_images": 2},
    "easyanimate": {"steps": 3, "frames": 9, "guidance_rescale": 0.5},
    "easyanimate_i2v": {"steps": 2, "frames": 5, "guidance_scale": 1.0},
}


def served(url, name, settings):
    """All outputs of a server: pictures, or one video."""
    client = Client(url)
    if client.about(name).makes_videos:
        return [client.video(name, PROMPT, **settings).frames]
    return [event.image for event in client.pictures(name, PROMPT, **settings)]


@pytest.mark.parametrize("name", CASES)
def test_local_outputs_match_those_of_a_server(families, families_server, name):
    pipeline, settings = LocalPipeline(families, name), {"seed": 7, **CASES[name]}
    if pipeline.family.image_encoder is not None:
        sides = pipeline.manifest.size
        settings["start_image"] = np.random.default_rng(7).integers(0, 256, (*sides, 3), np.uint8)
    wanted = served(families_server.grpc_url, name, settings)
    made = pipeline.generate(PROMPT, **settings)
    assert [image.shape for image in made] == [image.shape for image in wanted]
    pairs = zip(made, wanted, strict=True)
    difference = max(np.abs(one.astype(int) - other).max() for one, other in pairs)
    print(f"{name}: largest difference {difference} of 255, ceiling {CEILING}")
    assert difference <= CEILING


def test_minus_one_is_a_random_seed(families):
    pipeline = LocalPipeline(families, "sd3")
    first, second = (pipeline.generate(PROMPT, steps=1, seed=-1)[0] for _ in range(2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"steps": 0}, "steps: got 0; allowed are 1 to 100"),
        ({"steps": "many"}, "steps: got 'many', which is no INT32"),
        ({"colour": "red"}, "colour: got 'red'; allowed are prompt, negative_prompt, steps"),
        ({"height": 50}, "height: got 50; allowed are multiples of 16"),
    ],
)
def test_a_setting_that_is_not_allowed_is_refused(families, settings, says):
    with pytest.raises(InvalidRequest, match=says):
        LocalPipeline(families, "sd3").generate(PROMPT, **settings)
