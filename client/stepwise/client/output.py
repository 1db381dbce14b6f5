"""Writes a request's results to files as they arrive, with a progress bar."""

import re
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image

from stepwise.client import contact_sheet, files
from stepwise.client.errors import InvalidRequest, OutputError
from stepwise.client.events import Event
from stepwise.client.media import png, video
from stepwise.client.media.video import Frame
from stepwise.client.protocol import About

# Always steps per second; tqdm would switch to seconds per step below 1.
BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt}{unit} [{elapsed}<{remaining}, {rate_noinv_fmt}]"
STEPS, _FRAMES = " steps", " frames"


def output(options: Namespace, pipeline: str, about: About) -> Path:
    """The file to write, from the options or the default for the pipeline.

    Raises InvalidRequest for a suffix or an option that the pipeline does not support.
    """
    made, suffixes = (
        ("videos", tuple(video.KINDS)) if about.makes_videos else ("pictures", (".png",))
    )
    path: Path = options.output or Path(f"out{suffixes[0]}")
    if path.suffix.lower() not in suffixes:
        raise InvalidRequest(
            f"--output: got {path}; {pipeline} makes {made}, so the name must end in "
            f"{' or '.join(suffixes)}"
        )
    for option in () if about.makes_videos else ("fps", "contact_sheet"):
        if getattr(options, option) is not None:
            name = option.replace("_", "-")
            raise InvalidRequest(f"--{name}: is for videos, and {pipeline} makes pictures")
    sheet_path = options.contact_sheet
    if sheet_path is not None and sheet_path.suffix.lower() != ".png":
        raise InvalidRequest(f"--contact-sheet: got {sheet_path}; the name must end in .png")
    return path


def check(path: Path, request: Mapping[str, Any], about: About, options: Namespace) -> None:
    """Check all files that the request will write, and make their folders.

    Raises OutputError for a file that exists, without ``--force``, or that cannot be written.
    """
    due = [numbered(path, index) for index in range(_pictures(request, about))]
    if options.contact_sheet is not None:
        due.append(options.contact_sheet)
    if options.previews is not None:
        older = None if options.force else _older_preview(path, options.previews)
        if older is not None:
            raise files.exists(older)
        due.append(_preview(path, 0, options.previews))
    files.check(due, force=options.force)


def _pictures(request: Mapping[str, Any], about: About) -> int:
    """The number of pictures, within the range that the server allows."""
    try:
        asked = int(request.get("num_images", 1))
    except ValueError:
        return 1  # refused before it is sent
    most: int = about.ranges.get("num_images", (1, 1))[1]
    return max(1, min(asked, most))


def _older_preview(path: Path, folder: Path) -> Path | None:
    """A preview of an earlier request for the same files."""
    name = re.compile(rf"{re.escape(path.stem)}(-\d+)?-step-\d+\.png")
    found = folder.iterdir() if folder.is_dir() else ()
    return min((file for file in found if name.fullmatch(file.name)), default=None)


def write_pictures(
    events: Iterable[Event], bar: Any, path: Path, request: Mapping[str, Any], options: Namespace
) -> None:
    """Write each picture as it arrives, and its previews into a folder."""
    steps: dict[int, int] = {}
    for event in events:
        advance(bar, steps, event, int(request.get("num_images", 1)))
        own = numbered(path, event.index)
        if event.kind == "result":
            with _repeatable(event):
                png.save(event, own, request, force=options.force)
            bar.write(_summary(event, own))
        else:
            _write_preview(event, own, options)


def write_video(
    events: Iterable[Event],
    bar: Any,
    path: Path,
    request: Mapping[str, Any],
    options: Namespace,
    fps: int,
) -> None:
    """Write the video while its slices arrive, then the contact sheet if requested."""
    began, kept = time.monotonic(), dict[int, Frame]()
    slices = _slices(events, bar, path, options)
    first = next(slices)
    waited, frames = time.monotonic() - began, int(request["frames"])
    arriving = _decoding(chain([first], slices), bar, frames)
    keeping = contact_sheet.keeping(arriving, frames, kept)
    with _repeatable(first):
        video.save(keeping, path, request, fps, force=options.force)
        if options.contact_sheet is not None:
            contact_sheet.save(kept, options.contact_sheet, force=options.force)
    told = f"{frames} frames at {fps} fps, the first after {waited:.1f} s"
    bar.write(_summary(first, path, told))


def advance(bar: Any, steps: dict[int, int], event: Event, pictures: int) -> None:
    """Update the bar to the steps completed over all pictures; ``steps`` counts them by picture."""
    if event.step == 0:
        return  # the request still waits
    if not steps:
        bar.reset(total=event.steps * pictures)  # keep queueing time out of the rate
    steps[event.index] = event.step
    bar.update(sum(steps.values()) - bar.n)


def numbered(path: Path, index: int) -> Path:
    """``out.png`` for the first picture, ``out-1.png`` and so on for the others."""
    return path if index == 0 else path.with_stem(f"{path.stem}-{index}")


def _slices(events: Iterable[Event], bar: Any, path: Path, options: Namespace) -> Iterator[Event]:
    """Yield the results; show earlier events on the bar and write their previews."""
    steps: dict[int, int] = {}
    for event in events:
        if event.kind == "result":
            yield event
        else:
            advance(bar, steps, event, 1)
            _write_preview(event, path, options)


def _decoding(slices: Iterable[Event], bar: Any, frames: int) -> Iterator[Event]:
    """Yield the slices as they arrive, and count their frames on the bar."""
    bar.unit = _FRAMES
    bar.reset(total=frames)
    for event in slices:
        assert event.frames is not None
        bar.update(len(event.frames))
        yield event


def _write_preview(event: Event, path: Path, options: Namespace) -> None:
    if event.shown is not None:
        own = _preview(path, event.step, options.previews)
        with _repeatable(event), files.written(own, force=options.force) as partial:
            Image.fromarray(event.shown).save(partial, "PNG")


def _preview(path: Path, step: int, folder: Path) -> Path:
    return folder / f"{path.stem}-step-{step:03}.png"


@contextmanager
def _repeatable(event: Event) -> Iterator[None]:
    """Add the request's seed to the error of a file that cannot be written."""
    try:
        yield
    except OutputError as error:
        raise OutputError(
            f"{error}; the same command with --seed {event.asked_seed} makes this again"
        ) from error


def _summary(event: Event, path: Path, more: str = "") -> str:
    notes = "".join(f"\n  note: {note}" for note in event.notes)
    told = f"  {more}" if more else ""
    return (
        f"{path}  seed {event.seed}  {event.steps} steps{told}  "
        f"{event.queued_ms + event.denoising_ms:.0f} ms{notes}"
    )
