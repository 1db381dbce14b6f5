"""Presets: settings that checkpoint authors recommend, one JSON file each, named like the preset.

client.generate("sdxl", "a lighthouse", **presets.load("helloworld-xl").settings)
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from stepwise.client.errors import InvalidRequest
from stepwise.client.protocol import Setting


@dataclass(frozen=True)
class Preset:
    """Recommendations for requests to a checkpoint.

    ``pipeline`` is its family, ``source`` the checkpoint's address. ``settings`` are values for
    omitted settings. The rest is advice for the reader: ``sizes``, width x height in pixels, best
    first; ``structure``, how to build a prompt; ``vocabulary``, words for prompts by theme.
    ``notes`` name the sources.
    """

    name: str
    title: str
    pipeline: str
    source: str
    settings: Mapping[str, Setting]
    sizes: tuple[str, ...]
    structure: str
    vocabulary: Mapping[str, tuple[str, ...]]
    notes: str


def names(family: str | None = None) -> tuple[str, ...]:
    """The names of all presets, or of those for one family."""
    return tuple(name for name, preset in _presets().items() if family in (None, preset.pipeline))


def load(name: str, family: str | None = None) -> Preset:
    """The preset ``name``. Raises InvalidRequest if it is unknown or for another family."""
    if name not in _presets():
        raise InvalidRequest(f"preset: got {name!r}; there are {', '.join(names())}")
    preset = _presets()[name]
    if family not in (None, preset.pipeline):
        raise InvalidRequest(
            f"preset: got {name!r}, which is for {preset.pipeline}; for {family} there are "
            f"{', '.join(names(family)) or 'none'}"
        )
    return preset


@cache
def _presets() -> Mapping[str, Preset]:
    return {path.stem: _read(path) for path in sorted(Path(__file__).parent.glob("*.json"))}


def _read(path: Path) -> Preset:
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields["sizes"] = tuple(fields["sizes"])
    fields["vocabulary"] = {theme: tuple(words) for theme, words in fields["vocabulary"].items()}
    return Preset(name=path.stem, **fields)
