"""``stepwise generate``, ``video`` and ``repeat``: write pictures and videos to files."""

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from stepwise.client import contact_sheet, input_images, metadata, output, presets
from stepwise.client.cli.options import add_server, headers, parse
from stepwise.client.client import Client
from stepwise.client.errors import ClientError, InvalidRequest
from stepwise.client.failover import TIMEOUT
from stepwise.client.media import video as video_files
from stepwise.client.protocol import About

_PREVIEW_EVERY = 5
_INTERRUPTED = 130

# What a command makes; "either" follows the repeated file or the pipeline.
Made = Literal["picture", "video", "either"]

_DEFAULT_FILES = {
    "generate": "out.png;\nfurther pictures get -1, -2, ... in their names",
    "video": "out.mp4",
    "repeat": "out.png or out.mp4",
}

_SETTINGS = """
Every setting of the pipeline is an option of the same name: --steps, --seed, --guidance-scale,
--negative-prompt, --sampler, --height, --width, --preview-every and so on. An omitted setting gets
the preset's value, or else {fallback}the server's default. Separate two numbers with a comma:
--original-size 768,512. For an unknown setting, the error lists the pipeline's settings. Options
may stand anywhere; a prompt that begins with a dash goes to the end, after --.

Ctrl-C also cancels the request on the server. Exit status: 0 for success, 1 for an error (one
sentence), 130 after Ctrl-C.
"""
_PICTURES = """Makes pictures on a running server and writes PNG files.

stepwise generate sd3 "a large red star in the top left on a white background" --steps 20
"""
_VIDEOS = """Writes a video while its frames arrive. The extension of --output selects MP4 (H.264),
GIF or lossless WebP. Where a pipeline has --start-image and --end-image, give image files; they are
resized if both --height and --width are given.

stepwise video easyanimate "a red star moving to the right" --frames 49 --output video.mp4
"""
_REPEATED = """Makes a picture or video again, from the request stored in its file. A video made
from pictures reads the same picture files again.

stepwise repeat star.png --output again.png
"""


def generate(words: list[str]) -> int:
    """Make pictures. Returns the exit status."""
    return _main(words, "generate", _PICTURES, "picture")


def video(words: list[str]) -> int:
    """Make a video. Returns the exit status."""
    return _main(words, "video", _VIDEOS, "video")


def repeat(words: list[str]) -> int:
    """Repeat the request stored in a file. Returns the exit status."""
    return _main(words, "repeat", _REPEATED, "either")


def either(words: list[str]) -> int:
    """Make pictures or a video, whichever the pipeline makes. Returns the exit status."""
    return _main(words, "video", _PICTURES + _VIDEOS, "either")


def _main(words: list[str], command: str, purpose: str, made: Made) -> int:
    positionals = ("file",) if command == "repeat" else ("pipeline", "prompt")
    try:
        options, settings = parse(_parser(command, purpose), words, positionals)
        settings = _with_previews(settings, options)
        with Client(options.url, options.timeout, headers(options)) as client:
            _generate(client, settings, options, made)
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cancelled; stopping the request on the server", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _parser(command: str, purpose: str) -> argparse.ArgumentParser:
    repeats = command == "repeat"
    parser = argparse.ArgumentParser(
        prog=f"stepwise {command}",
        description=purpose + _SETTINGS.format(fallback="the file's, or " * repeats),
        formatter_class=argparse.RawTextHelpFormatter,
        allow_abbrev=False,
    )
    if repeats:
        parser.add_argument("file", type=Path, help="a file written by stepwise or its page")
    else:
        parser.add_argument("pipeline", help="a pipeline that the server serves")
        parser.add_argument("prompt", help="text that describes the result")
    add_server(parser)
    parser.add_argument(
        "--output", type=Path, help=f"file to write (default: {_DEFAULT_FILES[command]})"
    )
    parser.add_argument(
        "--force", action="store_true", help="replace files that exist (default: refuse)"
    )
    _add_video_options(parser, shown=command != "generate")
    parser.add_argument(
        "--previews",
        type=Path,
        metavar="DIR",
        help="folder for previews, written every --preview-every steps\n"
        f"(default: {_PREVIEW_EVERY})",
    )
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help="recommended values of a checkpoint's authors for omitted\n"
        "settings; stepwise presets lists them",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=TIMEOUT,
        help=f"seconds for the whole request (default: {TIMEOUT:.0f})",
    )
    return parser


def _add_video_options(parser: argparse.ArgumentParser, *, shown: bool) -> None:
    """Add the video options to every command, so that pictures refuse them with one error."""
    parser.add_argument(
        "--fps",
        type=_fps,
        metavar="N",
        help=f"frames per second of the video file, 1 to {video_files.MOST_FPS}\n"
        f"(default: the repeated file's, or else {video_files.FPS})"
        if shown
        else argparse.SUPPRESS,
    )
    parser.add_argument(
        "--contact-sheet",
        type=Path,
        metavar="FILE",
        help=f"PNG file for {contact_sheet.MOST} evenly spaced frames of the video"
        if shown
        else argparse.SUPPRESS,
    )


def _fps(word: str) -> int:
    fps = int(word) if word.isdecimal() else 0
    if not 1 <= fps <= video_files.MOST_FPS:
        raise argparse.ArgumentTypeError(f"got {word!r}; allowed are 1 to {video_files.MOST_FPS}")
    return fps


def _request(options: argparse.Namespace) -> dict[str, Any]:
    """The request before options apply: pipeline and prompt, or the one stored in a file."""
    if "file" in options:
        return metadata.load(options.file)
    return {metadata.PIPELINE: options.pipeline, "prompt": options.prompt}


def _with_previews(settings: dict[str, str], options: argparse.Namespace) -> dict[str, str]:
    """The settings, with previews requested if ``--previews`` names a folder."""
    if options.previews is not None:
        return {"preview_every": str(_PREVIEW_EVERY), **settings}
    if "preview_every" in settings:
        raise InvalidRequest("--preview-every: also give a folder with --previews DIR")
    return settings


def _generate(
    client: Client, given: dict[str, str], options: argparse.Namespace, made: Made
) -> None:
    """Send the request and write its results; ``given`` holds settings from the command line."""
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
    output.check(path, request, about, options)
    with (
        tqdm(unit=output.STEPS, bar_format=output.BAR, leave=False) as bar,
        closing(client.generate(pipeline, **sent)) as events,
    ):
        if about.makes_videos:
            output.write_video(events, bar, path, request, options, options.fps or fps)
        else:
            output.write_pictures(events, bar, path, request, options)


def _check(made: Made, pipeline: str, about: About) -> None:
    makes: Made = "video" if about.makes_videos else "picture"
    if made not in (makes, "either"):
        command = "video" if about.makes_videos else "generate"
        raise InvalidRequest(f"{pipeline} makes {makes}s: use stepwise {command}")
