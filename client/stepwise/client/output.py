"""Writes a request's results to files as they arrive, with a progress bar."""

import time
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image

from stepwise.client import contact_sheet
from stepwise.client.errors import InvalidRequest
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


def write_pictures(
    events: Iterable[Event], bar: Any, path: Path, request: Mapping[str, Any], previews: Path
) -> None:
    """Write each picture as it arrives, and its previews into a folder."""
    steps: dict[int, int] = {}
    for event in events:
        advance(bar, steps, event, int(request.get("num_images", 1)))
        own = numbered(path, event.index)
        if event.kind == "result":
            png.save(event, own, request)
            bar.write(_summary(event, own))
        else:
            _write_preview(event, own, previews)


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
    slices = _slices(events, bar, path, options.previews)
    first = next(slices)
    waited, frames = time.monotonic() - began, int(request["frames"])
    arriving = _decoding(chain([first], slices), bar, frames)
    video.save(contact_sheet.keeping(arriving, frames, kept), path, request, fps)
    if options.contact_sheet is not None:
        contact_sheet.save(kept, options.contact_sheet)
    told = f"{frames} frames at {fps} fps, the first after {waited:.1f} s"
    bar.write(_summary(first, path, told))


def advance(bar: Any, steps: dict[int, int], event: Event, pictures: int) -> None:
    """Update the bar to the steps completed over all pictures; ``steps`` counts them by picture."""
    if not steps:
        bar.reset(total=event.steps * pictures)  # keep queueing time out of the rate
    steps[event.index] = event.step
    bar.update(sum(steps.values()) - bar.n)


def numbered(path: Path, index: int) -> Path:
    """``out.png`` for the first picture, ``out-1.png`` and so on for the others."""
    return path if index == 0 else path.with_stem(f"{path.stem}-{index}")


def _slices(events: Iterable[Event], bar: Any, path: Path, previews: Path) -> Iterator[Event]:
    """Yield the results; show earlier events on the bar and write their previews."""
    steps: dict[int, int] = {}
    for event in events:
        if event.kind == "result":
            yield event
        else:
            advance(bar, steps, event, 1)
            _write_preview(event, path, previews)


def _decoding(slices: Iterable[Event], bar: Any, frames: int) -> Iterator[Event]:
    """Yield the slices as they arrive, and count their frames on the bar."""
    bar.unit = _FRAMES
    bar.reset(total=frames)
    for event in slices:
        assert event.frames is not None
        bar.update(len(event.frames))
        yield event


def _write_preview(event: Event, path: Path, folder: Path) -> None:
    if event.shown is not None:
        Image.fromarray(event.shown).save(folder / f"{path.stem}-step-{event.step:03}.png")


def _summary(event: Event, path: Path, more: str = "") -> str:
    notes = "".join(f"\n  note: {note}" for note in event.notes)
    told = f"  {more}" if more else ""
    return (
        f"{path}  seed {event.seed}  {event.steps} steps{told}  "
        f"{event.queued_ms + event.denoising_ms:.0f} ms{notes}"
    )
