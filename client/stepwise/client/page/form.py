"""What the fields of the form offer and hold, for a pipeline and for a preset."""

from collections.abc import Iterator, Mapping
from typing import Any

from stepwise.client import metadata, presets
from stepwise.client.presets import Preset
from stepwise.client.protocol import About

# Fields that no request has.
PRESET, WORDS = "preset", "words"
NO_PRESET = "none"
# What a preset fills in; the fields beside these it leaves as they are.
OF_PRESETS = (
    *("negative_prompt", "sampler", "steps", "guidance_scale", "bucket"),
    *(PRESET, WORDS),
)
# Of a pipeline that is served in certain sizes, any one understands these; it takes the nearest.
_RATIOS = ("1:1", "3:2", "2:3", "16:9", "9:16")
_RANGED = ("num_images", "frames", "steps", "guidance_scale", "guidance_rescale")
IMAGES = {"start_image": "Start image", "end_image": "End image"}

Shown = dict[str, dict[str, Any]]


def shown(about: About, name: str = NO_PRESET) -> Shown:
    """Gradio's properties of each field, by the name that a request has for it."""
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
    """A pipeline that has buckets is asked for one; any other for a height and a width."""
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
    """A prompt with one more tag at its end."""
    return f"{prompt.rstrip(', ')}, {word}" if prompt.strip() else word


def request(values: Mapping[str, Any], about: About) -> dict[str, Any]:
    """The request that the form's ``values`` stand for; what is blank is left to the server.

    A field that the pipeline has no setting for is hidden, and what it holds is left out. A
    preset's settings for which the form has no field are added.
    """
    name = values[PRESET]
    settings = {} if name == NO_PRESET else presets.load(name).settings
    hidden = {field: value for field, value in settings.items() if field not in values}
    known = {metadata.PIPELINE, *about.settings}
    given = {field: value for field, value in values.items() if field in known}
    return {**hidden, **{field: value for field, value in given.items() if value not in (None, "")}}
