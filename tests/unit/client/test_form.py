import pytest

from stepwise.client import About
from stepwise.client.page import form

BOTH = {"num_images": [1, 16], "steps": [1, 100], "guidance_scale": [0.0, 30.0]}
DEFAULTS = {"num_images": 1, "steps": 28, "guidance_scale": 7.0, "sampler": "heun"}
SETTINGS = ("prompt", "negative_prompt", "seed", "height", "width", *DEFAULTS)
SD3 = About({**DEFAULTS, "negative_prompt": ""}, BOTH, ("heun", "euler"), SETTINGS, "sd3")
SDXL = About(DEFAULTS, BOTH, ("heun", "euler"), (*SETTINGS, "bucket"), "sdxl")
OF_VIDEOS = {
    "frames": [1, 145],
    "steps": [1, 100],
    "guidance_scale": [0.0, 30.0],
    "guidance_rescale": [0.0, 1.0],
}
VIDEOS = About(
    {"frames": 49, "steps": 50, "guidance_scale": 6.0, "sampler": "euler"},
    OF_VIDEOS,
    ("euler",),
    (
        "prompt",
        "negative_prompt",
        "seed",
        "height",
        "width",
        "start_image",
        "end_image",
        *OF_VIDEOS,
    ),
    "easyanimate_i2v",
    ("start_image", "end_image"),
)
NONE = {"preset": form.NO_PRESET}


def test_without_a_preset_the_form_holds_the_pipelines_defaults():
    for about in (SD3, SDXL):
        shown = form.shown(about)
        assert {name: shown[name]["value"] for name in DEFAULTS} == DEFAULTS
        assert shown["negative_prompt"]["value"] == ""
        assert not shown["words"]["visible"]
    assert form.shown(SD3)["preset"]["choices"] == ["none", "sd3-medium"]
    assert form.shown(SDXL)["preset"]["choices"] == ["none", "helloworld-xl", "spo-sdxl"]


def test_size_fields_depend_on_the_pipeline():
    for about, bucketed in ((SD3, False), (SDXL, True)):
        shown = form.shown(about)
        visible = {name: shown[name]["visible"] for name in ("bucket", "height", "width")}
        assert visible == {"bucket": bucketed, "height": not bucketed, "width": not bucketed}


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [("", "red"), (" ", "red"), ("a star", "a star, red"), ("a star, ", "a star, red")],
)
def test_a_word_is_appended_to_the_prompt(prompt, wanted):
    assert form.with_word(prompt, "red") == wanted


def test_blank_fields_are_left_out_and_zeros_are_not():
    values = {**NONE, "negative_prompt": "", "seed": "0", "bucket": None, "guidance_scale": 0}
    assert form.request(values, SDXL) == {"seed": "0", "guidance_scale": 0}


def test_the_form_overrides_a_preset_even_with_blank_fields():
    values = {"preset": "helloworld-xl", "negative_prompt": "", "steps": 12}
    request = form.request(values, SDXL)
    assert request == {"steps": 12, "guidance_scale": 5.0, "sampler": "dpmpp_2m_karras"}


def test_a_video_pipeline_has_frames_and_input_images():
    fields = {"frames", "guidance_rescale", "start_image", "end_image"}
    for about, visible in ((SD3, {"num_images"}), (VIDEOS, fields)):
        shown = form.shown(about)
        assert {name for name in (*fields, "num_images") if shown[name]["visible"]} == visible
    wanted = {"frames": (1, 145, 49), "guidance_rescale": (0.0, 1.0, 0.0)}
    for name, values in wanted.items():
        field = form.shown(VIDEOS)[name]
        assert (field["minimum"], field["maximum"], field["value"]) == values


def test_values_of_hidden_fields_are_left_out():
    values = {**NONE, "num_images": 4, "frames": 49, "start_image": "a.png", "end_image": None}
    assert form.request(values, VIDEOS) == {"frames": 49, "start_image": "a.png"}
    assert form.request(values, SD3) == {"num_images": 4}
