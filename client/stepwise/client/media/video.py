"""MP4, GIF and WebP files with the request in their metadata, written while frames arrive.

An MP4 file is written frame by frame, without keeping frames in memory. Pillow writes GIF and WebP
files: it takes each frame as it arrives and writes the file after the last one, so it keeps all
frames, reduced to 256 colours for GIF and in full for WebP. Both formats merge consecutive equal
frames into one longer frame.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, count, pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from PIL import ExifTags, Image

from stepwise.client import files, metadata
from stepwise.client.errors import RequestFailed
from stepwise.client.events import Event

# Default frames per second: EasyAnimate was trained at 8.
FPS = 8
MOST_FPS = 50

Frame = npt.NDArray[np.uint8]

# At crf 17, H.264 loses about as much as 4:2:0 colour. x264 encodes a frame once five more have
# arrived instead of about forty; without look-ahead, files are twice as large. Repeating a video
# must give the same file, so the number of threads is fixed, and there are no B frames: for small
# sides, their look-ahead reads memory that x264 has not written.
_X264 = {
    "crf": "17",
    "x264-params": "rc-lookahead=4:sync-lookahead=0:sliced-threads=1:threads=2:lookahead-threads=1"
    ":bframes=0",
}
# Flushes frames to disk at once, and at the end moves the players' index to the file's front.
_CONTAINER = {"flush_packets": "1", "movflags": "+faststart"}
# Also written into the file, because players otherwise guess the colour space from the size.
_BT709 = Colorspace.ITU709, ColorRange.MPEG


def save(
    slices: Iterable[Event],
    path: Path,
    request: Mapping[str, Any],
    fps: int = FPS,
    *,
    force: bool = False,
) -> None:
    """Write a video from the results of one request in order; ``path``'s suffix is in ``KINDS``.

    ``request`` (pipeline, prompt, settings, including ``frames``) is stored in the file; ``fps`` is
    1 to ``MOST_FPS``. The file appears only when complete: an error in ``slices`` is raised and
    leaves no file. Raises RequestFailed if frames are missing, OutputError if the file exists
    (without ``force``) or cannot be written.
    """
    arriving = iter(slices)
    first = next(arriving)
    stored = metadata.comment(metadata.text(request, first, fps=fps))
    with files.written(path, force=force) as partial:
        frames = _frames(chain([first], arriving), int(request["frames"]))
        KINDS[path.suffix.lower()](frames, partial, fps, stored)


def _frames(slices: Iterable[Event], due: int) -> Iterator[Frame]:
    sent = 0
    for event in slices:
        assert event.frames is not None
        yield from event.frames
        sent += len(event.frames)
    if sent != due:
        raise RequestFailed(f"the server sent {sent} of {due} frames; see its log")


def _mp4(frames: Iterator[Frame], path: Path, fps: int, stored: str) -> None:
    pictures = map(_yuv420p, frames)
    first = next(pictures)
    with av.open(path, "w", format="mp4", options=_CONTAINER) as container:
        container.metadata["comment"] = stored
        stream = container.add_stream("libx264", rate=fps, options=_X264)
        stream.height, stream.width, stream.pix_fmt = first.height, first.width, first.format.name
        codec = stream.codec_context
        codec.colorspace, codec.color_range = _BT709
        codec.color_primaries, codec.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        for picture in chain([first], pictures):
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _yuv420p(frame: Frame) -> av.VideoFrame:
    """A frame for H.264, which needs even sides: an odd side repeats its last row or column."""
    height, width = frame.shape[:2]
    even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
    picture = av.VideoFrame.from_ndarray(even, format="rgb24")
    space, span = _BT709
    return picture.reformat(format="yuv420p", dst_colorspace=space, dst_color_range=span)


def _gif(frames: Iterator[Frame], path: Path, fps: int, stored: str) -> None:
    pictures = map(_lasting, frames, _milliseconds(fps))
    _animate(pictures, path, "GIF", comment=stored.encode())


def _lasting(frame: Frame, milliseconds: int) -> Image.Image:
    picture = Image.fromarray(frame)
    picture.info["duration"] = milliseconds
    return picture


def _milliseconds(fps: int) -> Iterator[int]:
    """The duration of each frame of a GIF, in steps of 10 ms: at 8 fps 120, 130, 120 and so on."""
    ends = (round(100 * frame / fps) for frame in count())
    return (10 * (end - begin) for begin, end in pairwise(ends))


def _webp(frames: Iterator[Frame], path: Path, fps: int, stored: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = stored.encode()
    pictures = map(Image.fromarray, frames)
    _animate(pictures, path, "WEBP", exif=exif, lossless=True, duration=1000 / fps)


def _animate(pictures: Iterator[Image.Image], path: Path, kind: str, **options: Any) -> None:
    """Write an endlessly looping animation."""
    first = next(pictures)
    first.save(path, kind, save_all=True, append_images=pictures, loop=0, **options)


KINDS = {".mp4": _mp4, ".gif": _gif, ".webp": _webp}
