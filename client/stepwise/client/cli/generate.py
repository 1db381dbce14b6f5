"""``stepwise generate``, ``video`` and ``repeat``: pictures and videos as files."""

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from stepwise.client import contact_sheet, input_images, metadata, output, presets
from stepwise.client.client import Client
from stepwise.client.errors import ClientError, InvalidRequest
from stepwise.client.media import video as video_files
from stepwise.client.protocol import About

_PREVIEW_EVERY = 5
_INTERRUPTED = 130

# What a command makes; "either" is what the file to repeat says, or whatever a pipeline makes.
Made = Literal["picture", "video", "either"]

_DEFAULT_FILES = {
    "generate": "out.png;\nfurther pictures get -1, -2, ... in their names",
    "video": "out.mp4",
    "repeat": "out.png or out.mp4",
}

_SETTINGS = """
Besides the options below, every setting of the pipeline is an option of the same name: --steps,
--seed, --guidance-scale, --negative-prompt, --sampler, --height, --width, --preview-every and so
on. One that is left out gets the preset's value, or else {fallback}the server's default. Two
numbers are separated by a comma: --original-size 768,512. A setting that the pipeline lacks is
answered with the list of those it has.

Ctrl-C stops the request on the server too. The exit status is 0 with what was asked for, 1 with an
error in one sentence, 130 after Ctrl-C.
"""
_PICTURES = """Makes pictures with a pipeline of a running server and writes PNG files.

stepwise generate sd3 "a large red star in the top left on a white background" --steps 20
"""
_VIDEOS = """Writes a video while its frames arrive, as MP4 (H.264), GIF or lossless WebP by the
ending of --output. --start-image and --end-image, for pipelines that have them, are files, and are
resized if both --height and --width are given.

stepwise video easyanimate "a red star moving to the right" --frames 49 --output video.mp4
"""
_REPEATED = """Makes the picture or video in a file again, from the request that the file holds. A
video that was made from pictures takes the same files again.

stepwise repeat out.png
"""


def generate(words: list[str]) -> int:
    """Make pictures; the exit status."""
    return _main(words, _parser("generate", _PICTURES), "picture")


def video(words: list[str]) -> int:
    """Make a video; the exit status."""
    return _main(words, _parser("video", _VIDEOS), "video")


def repeat(words: list[str]) -> int:
    """Make what a file holds again; the exit status."""
    return _main(words, _parser("repeat", _REPEATED), "either")


def either(words: list[str]) -> int:
    """Make what a pipeline makes, whatever that is; the exit status."""
    return _main(words, _parser("video", _PICTURES + _VIDEOS), "either")


def _main(words: list[str], parser: argparse.ArgumentParser, made: Made) -> int:
    options, rest = parser.parse_known_args(words)
    try:
        settings = _with_previews(_settings(rest), options)
        _generate(Client(options.url, options.timeout), settings, options, made)
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cancelled; the server is told to stop", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _parser(command: str, purpose: str) -> argparse.ArgumentParser:
    repeats = command == "repeat"
    parser = argparse.ArgumentParser(
        prog=f"stepwise {command}",
        description=purpose + _SETTINGS.format(fallback="the file's, or else " * repeats),
        formatter_class=argparse.RawTextHelpFormatter,
        allow_abbrev=False,
    )
    if repeats:
        parser.add_argument("file", type=Path, help="what this command or the page has written")
    else:
        parser.add_argument("pipeline", help="a pipeline that the server has")
        parser.add_argument("prompt", help="what it should show")
    parser.add_argument(
        "--url",
        default="127.0.0.1:8001",
        help="the server's gRPC address; of several, separated by\n"
        "commas, the next one is tried when one cannot take it",
    )
    parser.add_argument(
        "--output", type=Path, help=f"file to write (default: {_DEFAULT_FILES[command]})"
    )
    _add_video_options(parser, shown=command != "generate")
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
        "leave out; stepwise presets lists them",
    )
    parser.add_argument("--timeout", type=float, help="seconds to wait for all of it")
    return parser


def _add_video_options(parser: argparse.ArgumentParser, *, shown: bool) -> None:
    """Options of videos, which every command takes, to refuse them alike for pictures."""
    parser.add_argument(
        "--fps",
        type=_fps,
        metavar="N",
        help=f"frames per second of a video's file, 1 to {video_files.MOST_FPS}\n"
        f"(default: {video_files.FPS}, or as the file to repeat says)"
        if shown
        else argparse.SUPPRESS,
    )
    parser.add_argument(
        "--contact-sheet",
        type=Path,
        metavar="FILE",
        help=f"PNG file to write {contact_sheet.MOST} frames of a video to, evenly spaced"
        if shown
        else argparse.SUPPRESS,
    )


def _fps(word: str) -> int:
    fps = int(word) if word.isdecimal() else 0
    if not 1 <= fps <= video_files.MOST_FPS:
        raise argparse.ArgumentTypeError(f"got {word!r}; allowed are 1 to {video_files.MOST_FPS}")
    return fps


def _request(options: argparse.Namespace) -> dict[str, Any]:
    """The request before any option: pipeline and prompt, or all that a file says."""
    if "file" in options:
        return metadata.load(options.file)
    return {metadata.PIPELINE: options.pipeline, "prompt": options.prompt}


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


def _generate(
    client: Client, given: dict[str, str], options: argparse.Namespace, made: Made
) -> None:
    """Make and write what is asked for; ``given`` are the settings of the options."""
    asked = _request(options)
    pipeline = {**asked, **given}[metadata.PIPELINE]
    about = client.about(pipeline)
    _check(made, pipeline, about)
    path = output.output(options, pipeline, about)
    advised = presets.load(options.preset, about.family).settings if options.preset else {}
    settings = {**asked, **advised, **given}
    del settings[metadata.PIPELINE]
    fps = settings.pop(metadata.FPS, video_files.FPS)
    sent, noted = input_images.taken(settings, about.images)
    request = {**about.defaults, metadata.PIPELINE: pipeline, **noted}
    _make_folders(path, options)
    with (
        tqdm(unit=output.STEPS, bar_format=output.BAR, leave=False) as bar,
        closing(client.generate(pipeline, **sent)) as events,
    ):
        if about.makes_videos:
            output.write_video(events, bar, path, request, options, options.fps or fps)
        else:
            output.write_pictures(events, bar, path, request, options.previews)


def _check(made: Made, pipeline: str, about: About) -> None:
    makes: Made = "video" if about.makes_videos else "picture"
    if made not in (makes, "either"):
        command = "video" if about.makes_videos else "generate"
        raise InvalidRequest(f"{pipeline} makes {makes}s: use stepwise {command}")


def _make_folders(path: Path, options: argparse.Namespace) -> None:
    sheet = options.contact_sheet
    for folder in filter(None, [path.parent, options.previews, sheet and sheet.parent]):
        folder.mkdir(parents=True, exist_ok=True)
