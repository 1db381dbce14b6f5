"""stepwise presets
stepwise presets helloworld-xl

Lists the presets for --preset, or shows one: the settings that it adds to a request, and advice on
sizes and prompts, which is not applied.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator
from textwrap import TextWrapper

from stepwise.client import presets
from stepwise.client.errors import ClientError
from stepwise.client.presets import Preset

_PARAGRAPH = TextWrapper(
    width=100, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
)


def main(arguments: list[str]) -> int:
    """Parse the command line and print. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="stepwise presets",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("name", nargs="?", help="the preset to show (default: list all)")
    name = parser.parse_args(arguments).name
    try:
        lines = _list() if name is None else _show(presets.load(name))
        print("\n".join(lines))
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _list() -> Iterator[str]:
    for name in presets.names():
        preset = presets.load(name)
        yield f"{name:15} {preset.title}, for {preset.pipeline}"


def _show(preset: Preset) -> Iterator[str]:
    yield f"{preset.title}, for {preset.pipeline}"
    yield preset.source
    options = (
        f"--{name.replace('_', '-')} {shlex.quote(str(value))}"
        for name, value in preset.settings.items()
    )
    yield from _section("settings", *options)
    yield from _section("sizes, width x height, the best first", ", ".join(preset.sizes))
    yield from _section("prompts", preset.structure)
    if preset.vocabulary:
        words = (f"{theme}: {', '.join(tags)}" for theme, tags in preset.vocabulary.items())
        yield from _section("words", *words)
    yield from _section("notes", preset.notes)


def _section(title: str, *paragraphs: str) -> Iterator[str]:
    yield f"\n{title}"
    for text in paragraphs:
        yield from _PARAGRAPH.wrap(text)
