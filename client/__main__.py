"""python -m client sd3 "a large red star in the top left on a white background" --steps 20
python -m client repeat picture.png
python -m client presets
python -m client page

Makes pictures with a pipeline of a running server, or repeats one from what its PNG file says.
The third line tells what there is for --preset, the last serves a page for a browser; both have
a --help of their own.
Beside the options below, every setting of the pipeline is an option of the same name: --steps,
--seed, --guidance-scale, --negative-prompt, --sampler, --num-images, --height, --width,
--preview-every and so on. They follow the prompt; one that is left out gets the preset's value,
or else the file's, or else the server's default. Two numbers are separated by a comma:
--original-size 768,512. A setting that the pipeline lacks is answered with the list of those it
has.

Ctrl-C stops the request on the server too. The exit status is 0 with pictures, 1 with an error in
one sentence, 130 after Ctrl-C.
"""

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from client import png, presets
from client.client import Client
from client.errors import ClientError, InvalidRequest
from client.events import Event
from client.page import command as page
from client.presets import command as presets_command

_REPEAT = "repeat"
_COMMANDS = {"page": page.main, "presets": presets_command.main}
_PREVIEW_EVERY = 5
_INTERRUPTED = 130
# Always steps per second, where tqdm would turn a slow rate around.
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} steps [{elapsed}<{remaining}, {rate_noinv_fmt}]"


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, make the pictures; the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in _COMMANDS:
        return _COMMANDS[arguments[0]](arguments[1:])
    parser = argparse.ArgumentParser(
        prog="python -m client",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("pipeline", help=f"a pipeline that the server has, or {_REPEAT!r}")
    parser.add_argument("prompt", help="what the picture should show, or the file to repeat")
    parser.add_argument(
        "--url",
        default="127.0.0.1:8001",
        help="the server's gRPC address; of several, separated by\n"
        "commas, the next one is tried when one cannot take it",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("out.png"),
        help="file to write (default: out.png); further pictures\nget -1, -2, ... in their names",
    )
    parser.add_argument(
        "--previews",
        type=Path,
        metavar="DIR",
        help="folder to write previews to, one every --preview-every\n"
        f"steps (default: every {_PREVIEW_EVERY})",
    )
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help="what a checkpoint's makers advise, for settings that you\n"
        "leave out; python -m client presets lists them",
    )
    parser.add_argument("--timeout", type=float, help="seconds to wait for all pictures")
    options, rest = parser.parse_known_args(arguments)
    try:
        settings = _with_previews(_settings(rest), options)
        _generate(Client(options.url, options.timeout), settings, options)
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cancelled; the server is told to stop", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _request(pipeline: str, prompt: str) -> dict[str, Any]:
    """What is asked for before any option: pipeline and prompt, or all that a file says."""
    if pipeline == _REPEAT:
        return png.load(Path(prompt))
    return {png.PIPELINE: pipeline, "prompt": prompt}


def _settings(rest: list[str]) -> dict[str, str]:
    """Pairs of ``--name value`` or ``--name=value`` as settings by name."""
    words, settings = list(rest), {}
    while words:
        option, has_value, value = words.pop(0).partition("=")
        if not option.startswith("--"):
            raise InvalidRequest(f"got {option!r}; settings are given as --name value")
        if not has_value:
            if not words:
                raise InvalidRequest(f"{option}: a value is missing")
            value = words.pop(0)
        settings[option[2:].replace("-", "_")] = value
    return settings


def _with_previews(settings: dict[str, str], options: argparse.Namespace) -> dict[str, str]:
    """The settings, asking for previews if there is a folder for them."""
    if options.previews is not None:
        return {"preview_every": str(_PREVIEW_EVERY), **settings}
    if "preview_every" in settings:
        raise InvalidRequest("--preview-every: say where to write previews with --previews DIR")
    return settings


def _generate(client: Client, given: dict[str, str], options: argparse.Namespace) -> None:
    """Make the pictures and write each as it comes; ``given`` are the settings of the options."""
    asked = _request(options.pipeline, options.prompt)
    pipeline = {**asked, **given}[png.PIPELINE]
    about = client.about(pipeline)
    advised = presets.load(options.preset, about.family).settings if options.preset else {}
    settings = {**asked, **advised, **given}
    used = {**about.defaults, **settings}
    del settings[png.PIPELINE]
    for folder in {options.output.parent, options.previews or options.output.parent}:
        folder.mkdir(parents=True, exist_ok=True)
    with (
        tqdm(unit=" steps", bar_format=_BAR, leave=False) as bar,
        closing(client.generate(pipeline, **settings)) as events,
    ):
        steps: dict[int, int] = {}
        for event in events:
            _advance(bar, steps, event, int(used.get("num_images", 1)))
            path = _path(options.output, event.index)
            if event.kind == "result":
                png.save(event, path, used)
                bar.write(_summary(event, path))
            elif event.image is not None:
                preview = options.previews / f"{path.stem}-step-{event.step:03}.png"
                Image.fromarray(event.image).save(preview)


def _advance(bar: Any, steps: dict[int, int], event: Event, pictures: int) -> None:
    """Show how many steps all pictures have behind them; ``steps`` are those of each."""
    if not steps:
        bar.reset(total=event.steps * pictures)  # waiting for the first step is not its rate
    steps[event.index] = event.step
    bar.update(sum(steps.values()) - bar.n)


def _path(output: Path, index: int) -> Path:
    """``out.png`` for the first picture, ``out-1.png`` and so on for the others."""
    return output if index == 0 else output.with_stem(f"{output.stem}-{index}")


def _summary(event: Event, path: Path) -> str:
    notes = "".join(f"\n  note: {note}" for note in event.notes)
    return (
        f"{path}  seed {event.seed}  {event.steps} steps  "
        f"{event.queued_ms + event.denoising_ms:.0f} ms{notes}"
    )


if __name__ == "__main__":
    sys.exit(main())
