"""Videos that remember how they were made: MP4, GIF and WebP files, written while frames arrive.

An MP4 file grows frame by frame, and nothing else of the video is in memory. GIF and WebP files are
Pillow's, which takes each frame as it comes and writes the file after the last: it keeps frames of
256 colours for a GIF and whole ones for a WebP. Both show equal frames that follow each other as
one that lasts longer.
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

from stepwise.client import metadata
from stepwise.client.errors import RequestFailed
from stepwise.client.events import Event

# Frames per second, unless it is said: what EasyAnimate was trained at.
FPS = 8
MOST_FPS = 50

Frame = npt.NDArray[np.uint8]

# At 17, H.264 loses about as much as 4:2:0 colour. A frame is encoded when five more are there,
# where x264 would otherwise wait for some forty; without any, files are twice as large. A repeated
# video is to be the same file: the number of threads, which counts, is the same everywhere, and
# there are no B frames, whose look-ahead reads memory that x264 has not written if sides are small.
_X264 = {
    "crf": "17",
    "x264-params": "rc-lookahead=4:sync-lookahead=0:sliced-threads=1:threads=2:lookahead-threads=1"
    ":bframes=0",
}
# Frames go to the disk at once; what players need first is put in front of them in the end.
_CONTAINER = {"flush_packets": "1", "movflags": "+faststart"}
# Said in the file too, as players guess by size what is left open.
_BT709 = Colorspace.ITU709, ColorRange.MPEG


def save(slices: Iterable[Event], path: Path, request: Mapping[str, Any], fps: int = FPS) -> None:
    """Write a video, the results of one request in order, as the kind of file that ``path`` names.

    ``request`` (pipeline, prompt, settings, with the number of frames) is written beside it;
    ``fps`` is 1 to ``MOST_FPS``. The file appears when it is whole: if ``slices`` raises, so does
    this, and nothing is left. Raises RequestFailed if they are not all the frames.
    """
    arriving = iter(slices)
    first = next(arriving)
    stored = metadata.comment(metadata.text(request, first, fps=fps))
    partial = path.with_name(f".{path.name}.part")
    try:
        frames = _frames(chain([first], arriving), int(request["frames"]))
        KINDS[path.suffix.lower()](frames, partial, fps, stored)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


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
    """A frame for H.264, whose sides are even: an odd one gets its last row or column twice."""
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
    """How long each frame of a GIF is shown, in steps of 10: at 8 fps 120, 130, 120 and so on."""
    ends = (round(100 * frame / fps) for frame in count())
    return (10 * (end - begin) for begin, end in pairwise(ends))


def _webp(frames: Iterator[Frame], path: Path, fps: int, stored: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = stored.encode()
    pictures = map(Image.fromarray, frames)
    _animate(pictures, path, "WEBP", exif=exif, lossless=True, duration=1000 / fps)


def _animate(pictures: Iterator[Image.Image], path: Path, kind: str, **options: Any) -> None:
    """Write pictures that are shown again and again."""
    first = next(pictures)
    first.save(path, kind, save_all=True, append_images=pictures, loop=0, **options)


KINDS = {".mp4": _mp4, ".gif": _gif, ".webp": _webp}
