"""python -m client sd3 "a large red star in the top left on a white background" --steps 20
python -m client easyanimate "a red star moving to the right" --frames 49 --output clip.mp4
python -m client repeat picture.png
python -m client presets
python -m client page

Makes pictures or a clip with a pipeline of a running server, or repeats one from what its file
says. The fourth line tells what there is for --preset, the last serves a page for a browser; both
have a --help of their own.
Beside the options below, every setting of the pipeline is an option of the same name: --steps,
--seed, --guidance-scale, --negative-prompt, --sampler, --num-images, --height, --width,
--preview-every and so on. They follow the prompt; one that is left out gets the preset's value,
or else the file's, or else the server's default. Two numbers are separated by a comma:
--original-size 768,512. A setting that the pipeline lacks is answered with the list of those it
has.

Pictures are PNG files; a clip is MP4 (H.264), GIF or WebP (lossless), as the name of --output ends,
and is written while its frames arrive. --start-image and --end-image, for pipelines that have them,
are files, and are resized if both --height and --width are given. To repeat such a clip takes the
same files again.

Ctrl-C stops the request on the server too, and leaves no part of a clip. The exit status is 0 with
pictures or a clip, 1 with an error in one sentence, 130 after Ctrl-C.
"""

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from tqdm import tqdm

from client import clips, files, images, presets, record, sheet
from client.client import Client
from client.errors import ClientError, InvalidRequest
from client.page import command as page
from client.presets import command as presets_command

_REPEAT = "repeat"
_COMMANDS = {"page": page.main, "presets": presets_command.main}
_PREVIEW_EVERY = 5
_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, make what it asks for; the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in _COMMANDS:
        return _COMMANDS[arguments[0]](arguments[1:])
    options, rest = _parser().parse_known_args(arguments)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m client",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("pipeline", help=f"a pipeline that the server has, or {_REPEAT!r}")
    parser.add_argument(
        "prompt", help="what the picture or clip should show, or the file to repeat"
    )
    parser.add_argument(
        "--url",
        default="127.0.0.1:8001",
        help="the server's gRPC address; of several, separated by\n"
        "commas, the next one is tried when one cannot take it",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="file to write (default: out.png, or out.mp4 of a clip);\nfurther pictures "
        "get -1, -2, ... in their names",
    )
    parser.add_argument(
        "--fps",
        type=_fps,
        metavar="N",
        help=f"frames per second of a clip's file, 1 to {clips.MOST_FPS}\n(default: {clips.FPS}, "
        "or as the file to repeat says)",
    )
    parser.add_argument(
        "--contact-sheet",
        type=Path,
        metavar="FILE",
        help=f"PNG file to write {sheet.MOST} frames of a clip to, evenly spaced",
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
    parser.add_argument("--timeout", type=float, help="seconds to wait for all of it")
    return parser


def _fps(word: str) -> int:
    fps = int(word) if word.isdecimal() else 0
    if not 1 <= fps <= clips.MOST_FPS:
        raise argparse.ArgumentTypeError(f"got {word!r}; allowed are 1 to {clips.MOST_FPS}")
    return fps


def _request(pipeline: str, prompt: str) -> dict[str, Any]:
    """What is asked for before any option: pipeline and prompt, or all that a file says."""
    if pipeline == _REPEAT:
        return record.load(Path(prompt))
    return {record.PIPELINE: pipeline, "prompt": prompt}


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
    """Make and write what is asked for; ``given`` are the settings of the options."""
    asked = _request(options.pipeline, options.prompt)
    pipeline = {**asked, **given}[record.PIPELINE]
    about = client.about(pipeline)
    path = files.output(options, pipeline, about)
    advised = presets.load(options.preset, about.family).settings if options.preset else {}
    settings = {**asked, **advised, **given}
    del settings[record.PIPELINE]
    fps = settings.pop(record.FPS, clips.FPS)
    sent, noted = images.taken(settings, about.images)
    request = {**about.defaults, record.PIPELINE: pipeline, **noted}
    _make_folders(path, options)
    with (
        tqdm(unit=files.STEPS, bar_format=files.BAR, leave=False) as bar,
        closing(client.generate(pipeline, **sent)) as events,
    ):
        if about.makes_clips:
            files.write_clip(events, bar, path, request, options, options.fps or fps)
        else:
            files.write_pictures(events, bar, path, request, options.previews)


def _make_folders(path: Path, options: argparse.Namespace) -> None:
    further = [options.previews, options.contact_sheet and options.contact_sheet.parent]
    for folder in filter(None, [path.parent, *further]):
        folder.mkdir(parents=True, exist_ok=True)


if __name__ == "__main__":
    sys.exit(main())
