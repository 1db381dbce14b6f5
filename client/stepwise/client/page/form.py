"""The form's fields: choices and values for a pipeline and a preset, and the resulting request."""

from collections.abc import Iterator, Mapping
from typing import Any

from stepwise.client import metadata, presets
from stepwise.client.presets import Preset
from stepwise.client.protocol import About

# Fields that are not settings of a request.
PRESET, WORDS = "preset", "words"
NO_PRESET = "none"
# The fields that a preset fills in; it does not change others.
OF_PRESETS = (
    *("negative_prompt", "sampler", "steps", "guidance_scale", "bucket"),
    *(PRESET, WORDS),
)
# Every pipeline with fixed sizes accepts these ratios and uses the nearest size.
_RATIOS = ("1:1", "3:2", "2:3", "16:9", "9:16")
_RANGED = ("num_images", "frames", "steps", "guidance_scale", "guidance_rescale")
IMAGES = {"start_image": "Start image", "end_image": "End image"}

Shown = dict[str, dict[str, Any]]


def shown(about: About, name: str = NO_PRESET) -> Shown:
    """Gradio's properties of each field, by setting name."""
    preset = None if name == NO_PRESET else presets.load(name, about.family)
    values = {**about.defaults, **(preset.settings if preset else {})}
    named = [NO_PRESET, *presets.names(about.family)]
    info = preset.structure if preset else None
    return {
        PRESET: {"choices": named, "value": name, "info": info, "visible": len(named) > 1},
        "negative_prompt": {"value": values.get("negative_prompt", "")},
        "sampler": {"choices": list(about.samplers), "value": values["sampler"]},
        **{field: _range(about, field, values) for field in _RANGED},
        **{field: {"value": None, "visible": field in about.images} for field in IMAGES},
        **_sizes(about, preset),
        WORDS: _words(preset),
    }


def _range(about: About, field: str, values: Mapping[str, Any]) -> dict[str, Any]:
    if field not in about.ranges:
        return {"visible": False}
    low, high = about.ranges[field]
    value = values.get(field, low)
    return {"minimum": low, "maximum": high, "value": value, "visible": True}


def _sizes(about: About, preset: Preset | None) -> Shown:
    """The size fields: a bucket if the pipeline has buckets, otherwise height and width."""
    bucketed = "bucket" in about.settings
    choices = list(preset.sizes if preset else _RATIOS)
    side = {"value": "", "visible": not bucketed}
    return {
        "bucket": {"choices": choices, "value": None, "visible": bucketed},
        "height": side,
        "width": side,
    }


def _words(preset: Preset | None) -> dict[str, Any]:
    choices = list(_labelled(preset.vocabulary)) if preset else []
    return {"choices": choices, "value": None, "visible": bool(choices)}


def _labelled(vocabulary: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    for theme, words in vocabulary.items():
        yield from ((f"{theme}: {word}", word) for word in words)


def with_word(prompt: str, word: str) -> str:
    """The prompt with one more tag appended."""
    return f"{prompt.rstrip(', ')}, {word}" if prompt.strip() else word


def request(values: Mapping[str, Any], about: About) -> dict[str, Any]:
    """The request for the form's ``values``; the server chooses blank settings.

    Values of fields that are not settings of the pipeline are left out, since those fields are
    hidden. A preset's settings without a field are added.
    """
    name = values[PRESET]
    settings = {} if name == NO_PRESET else presets.load(name).settings
    hidden = {field: value for field, value in settings.items() if field not in values}
    known = {metadata.PIPELINE, *about.settings}
    given = {field: value for field, value in values.items() if field in known}
    return {**hidden, **{field: value for field, value in given.items() if value not in (None, "")}}
