import json

import numpy as np
import pytest
from tritonclient.utils import triton_to_np_dtype

from stepwise.client import InvalidRequest, presets
from stepwise.client.cli.main import main
from stepwise.description.manifest import Manifest, Sides
from stepwise.description.settings import words
from stepwise.families import FAMILIES
from stepwise.families.sdxl import BUCKETS
from stepwise.request.resolve import resolve
from stepwise.request.sizes import picture_size
from tests.support.paths import ROOT

CONFIGS = ROOT / "export" / "stepwise" / "export" / "families" / "data"

NATIVE = {"sdxl": 1024, "sdxl_turbo": 512, "sd3": 1024}
MINIATURES = ROOT / "miniatures"
# Settings that depend on one picture, its size or its serving; a preset must not set them.
NOT_ADVISED = {
    *("prompt", "seed", "num_images", "height", "width", "bucket", "original_size", "crop"),
    *("target_size", "preview_every", "deadline_ms", "priority", "client"),
}


def manifest(pipeline):
    """The manifest of a checkpoint at true size."""
    native = NATIVE[pipeline.name]
    folder = (CONFIGS if pipeline.buckets else MINIATURES) / pipeline.name
    schedule = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    low, high = (int(factor * native) for factor in pipeline.limits.side_factors)
    scaled = tuple((h * native // 1024, w * native // 1024) for h, w in pipeline.buckets)
    return Manifest(
        *(pipeline.name, pipeline.name, "checkpoint", "fp32", 4, 8),
        Sides(native, low, high, 8),
        *(schedule, {}, (), {}, (native, native)),
        buckets=scaled,
        largest_clip_skip=11,
    )


def tensors(pipeline, settings):
    """Settings as request tensors; raises KeyError for a setting that the pipeline lacks."""
    known = {tensor.name: tensor for tensor in pipeline.request}
    return {
        name: np.asarray([value.encode()], object)
        if known[name].dtype == "BYTES"
        else np.full(known[name].dims, value, triton_to_np_dtype(known[name].dtype))
        for name, value in settings.items()
    }


@pytest.mark.parametrize("name", presets.names())
def test_settings_of_a_preset_are_valid_and_used(name):
    preset = presets.load(name)
    pipeline = FAMILIES[preset.pipeline]
    assert not NOT_ADVISED & set(preset.settings)
    taken = resolve(tensors(pipeline, preset.settings), pipeline, manifest(pipeline), {}, 0.0)
    for setting in {"steps", "guidance_scale", "sampler"} & set(preset.settings):
        assert getattr(taken, setting) == preset.settings[setting]


@pytest.mark.parametrize("name", presets.names())
def test_sizes_of_a_preset_are_served(name):
    preset = presets.load(name)
    pipeline = FAMILIES[preset.pipeline]
    for size in preset.sizes:
        width, height = map(int, size.split("x"))
        sides = {"height": height, "width": width}
        asked = {"bucket": size} if pipeline.buckets else sides
        served, notes = picture_size(tensors(pipeline, asked), manifest(pipeline))
        assert (words(served), notes) == (size, ())


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_names_its_source_and_repeats_no_word(name):
    preset = presets.load(name)
    assert preset.source.startswith("https://")
    assert all((preset.title, preset.structure, preset.notes, preset.sizes))
    said = [word for tags in preset.vocabulary.values() for word in tags]
    assert len(said) == len(set(said))


def test_helloworld_has_the_sizes_words_and_negative_prompt_of_its_author():
    preset = presets.load("helloworld-xl")
    assert preset.sizes == tuple(map(words, BUCKETS))
    assert {theme: len(tags) for theme, tags in preset.vocabulary.items()} == {
        "photography": 14,
        "composition": 7,
        "colour": 10,
        "illustration": 8,
        "mood": 10,
        "people": 9,
        "hair and clothing": 9,
        "expression": 10,
        "pose": 8,
        "quality": 5,
    }
    assert preset.settings["negative_prompt"] == (
        "bad hand, bad anatomy, worst quality, ai generated images, low quality, average quality"
    )


def test_presets_are_known_by_name_and_family():
    assert presets.names() == ("helloworld-xl", "sd3-medium", "sdxl-turbo", "spo-sdxl")
    assert presets.names("sdxl") == ("helloworld-xl", "spo-sdxl")
    assert presets.names("video") == ()
    assert presets.load("spo-sdxl", "sdxl") == presets.load("spo-sdxl")


@pytest.mark.parametrize("name", ["", "sd4", "../page", "helloworld-xl.json", "HELLOWORLD-XL"])
def test_the_error_of_an_unknown_preset_lists_all(name):
    with pytest.raises(InvalidRequest) as caught:
        presets.load(name)
    assert str(caught.value) == f"preset: got {name!r}; there are {', '.join(presets.names())}"


@pytest.mark.parametrize(
    ("family", "there"), [("sdxl", "helloworld-xl, spo-sdxl"), ("video", "none")]
)
def test_a_preset_of_another_family_is_refused(family, there):
    with pytest.raises(InvalidRequest) as caught:
        presets.load("sd3-medium", family)
    assert str(caught.value) == (
        f"preset: got 'sd3-medium', which is for sd3; for {family} there are {there}"
    )


def test_the_command_lists_presets_and_shows_one(capsys):
    assert main(["presets"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == list(presets.names())
    assert main(["presets", "helloworld-xl"]) == 0
    shown = capsys.readouterr().out
    for said in ("--guidance-scale 5.0", "--negative-prompt 'bad hand,", "832x1248, 896x1152"):
        assert said in shown
    assert "  colour: black and white portrait, monochrome portrait," in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_the_command_lists_presets_for_an_unknown_name(capsys):
    assert main(["presets", "sd4"]) == 1
    assert capsys.readouterr().err.startswith("error: preset: got 'sd4'; there are helloworld-xl,")
