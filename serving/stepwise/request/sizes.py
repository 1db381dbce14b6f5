"""How large a picture is, as a request may say it: sides, a bucket or an aspect ratio."""

import math
import re
from collections.abc import Mapping

from stepwise.description.errors import InvalidRequest
from stepwise.description.family import Family
from stepwise.description.fields import Array, text
from stepwise.description.manifest import Manifest, VideoLayout
from stepwise.description.settings import Size, words
from stepwise.description.spec import IMAGES

_LONGEST_BUCKET = 32
_SIZE = re.compile(r"(\d{1,6})x(\d{1,6})")
_RATIO = re.compile(r"(\d{1,6}(?:\.\d{1,6})?):(\d{1,6}(?:\.\d{1,6})?)")
_MEANING = "as width x height in pixels"
_IMAGES = tuple(tensor.name for tensor in IMAGES)


def picture_size(inputs: Mapping[str, Array], manifest: Manifest) -> tuple[Size, tuple[str, ...]]:
    """The size that a request asks for, and notes on it.

    A checkpoint with buckets is served in those alone: ``height`` and ``width`` must be one of
    them, and ``bucket`` names one, such as ``832x1248`` (width x height), or an aspect ratio, such
    as ``2:3``, which gets the nearest. A video that continues images has their size if it names
    none, and no other. Raises InvalidRequest.
    """
    buckets = manifest.buckets
    if not buckets:
        size = (_side(inputs, "height", manifest), _side(inputs, "width", manifest))
        _check_images(inputs, size)
        return size, ()
    named = text(inputs, "bucket", "", _LONGEST_BUCKET)
    default, notes = _bucket(named, buckets) if named else (manifest.size, ())
    asked = (_given(inputs, "height", default[0]), _given(inputs, "width", default[1]))
    if asked not in buckets:
        raise InvalidRequest(
            f"height and width: got {words(asked)}; allowed are, {_MEANING}, {_listed(buckets)}; "
            f"the nearest is {words(_nearest(asked[1] / max(asked[0], 1), buckets))}"
        )
    if named and asked != default:
        raise InvalidRequest(
            f"bucket: got {named!r}, which is {words(default)} ({_MEANING}), beside a height and "
            f"width of {words(asked)}; leave one of them out"
        )
    return asked, notes


def _bucket(named: str, buckets: tuple[Size, ...]) -> tuple[Size, tuple[str, ...]]:
    """The bucket that a request names, and a note if it is the nearest to an aspect ratio."""
    size, ratio = _SIZE.fullmatch(named), _RATIO.fullmatch(named)
    if size and (found := (int(size[2]), int(size[1]))) in buckets:
        return found, ()
    if ratio and float(ratio[1]) > 0 and float(ratio[2]) > 0:
        nearest = _nearest(float(ratio[1]) / float(ratio[2]), buckets)
        return nearest, (f"bucket: the nearest to {named} is {words(nearest)} (width x height)",)
    raise InvalidRequest(
        f"bucket: got {named!r}; allowed are, {_MEANING}, {_listed(buckets)}, or an aspect ratio "
        "of width to height such as 3:2"
    )


def _nearest(ratio: float, buckets: tuple[Size, ...]) -> Size:
    """The bucket whose width over height is nearest; of equal ones the first."""
    target = math.log(max(ratio, 1e-6))
    return min(buckets, key=lambda size: abs(math.log(size[1] / size[0]) - target))


def _listed(buckets: tuple[Size, ...]) -> str:
    return ", ".join(map(words, buckets))


def _given(inputs: Mapping[str, Array], name: str, default: int) -> int:
    return int(inputs[name][0]) if name in inputs else default


def _side(inputs: Mapping[str, Array], name: str, manifest: Manifest) -> int:
    """A picture's height or width in pixels: what is asked for, an image's, or the usual one."""
    sides, place = manifest.sides, ("height", "width").index(name)
    image = next((image for image in _IMAGES if image in inputs), None)
    usual = inputs[image].shape[place] if image else manifest.size[place]
    value = _given(inputs, name, usual)
    if value % sides.multiple or not sides.minimum <= value <= sides.maximum:
        nearest = round(value / sides.multiple) * sides.multiple
        nearest = min(max(nearest, sides.minimum), sides.maximum)
        field = f"{image}'s {name}" if image and name not in inputs else name
        raise InvalidRequest(
            f"{field}: got {value}; allowed are multiples of {sides.multiple} from "
            f"{sides.minimum} to {sides.maximum}; the nearest is {nearest}"
        )
    return value


def video_frames(inputs: Mapping[str, Array], family: Family, video: VideoLayout) -> int:
    """How many frames a video has: one, and as many as frames of latents hold after it."""
    low, high = family.limits.frames or (1, 1)
    value = _given(inputs, "frames", family.defaults.frames or 1)
    if value == 1 and "end_image" in inputs:
        raise InvalidRequest("end_image: got one for a video of 1 frame; ask for more frames")
    if low <= value <= high and (value - 1) % video.frames == 0:
        return value
    last = (high - 1) // video.frames * video.frames + 1
    below = min((max(value, low) - 1) // video.frames * video.frames + 1, last - video.frames)
    raise InvalidRequest(
        f"frames: got {value}; allowed are {low} to {high}, one more than a multiple of "
        f"{video.frames}; the nearest are {below} and {below + video.frames}"
    )


def _size(image: Array) -> Size:
    return image.shape[0], image.shape[1]


def _check_images(inputs: Mapping[str, Array], size: Size) -> None:
    for name in _IMAGES:
        if name in inputs and _size(inputs[name]) != size:
            raise InvalidRequest(
                f"{name}: got {words(_size(inputs[name]))}, beside a height and width of "
                f"{words(size)} ({_MEANING}); resize the image, or leave height and width out"
            )
