"""The size of a picture, from a request's sides, bucket or aspect ratio."""

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
    """The size of a request, and notes on it.

    A checkpoint with buckets is served only in those: ``height`` and ``width`` must match one, and
    ``bucket`` names one, such as ``832x1248`` (width x height), or an aspect ratio, such as
    ``2:3``, for the nearest one. A video that continues images has the size of the images, which is
    also its default. Raises InvalidRequest.
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
            f"bucket: got {named!r}, which is {words(default)} ({_MEANING}), but height and width "
            f"are {words(asked)}; leave one of them out"
        )
    return asked, notes


def _bucket(named: str, buckets: tuple[Size, ...]) -> tuple[Size, tuple[str, ...]]:
    """The bucket that a request names, with a note if an aspect ratio chose the nearest."""
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
    """The first bucket with the nearest width / height."""
    target = math.log(max(ratio, 1e-6))
    return min(buckets, key=lambda size: abs(math.log(size[1] / size[0]) - target))


def _listed(buckets: tuple[Size, ...]) -> str:
    return ", ".join(map(words, buckets))


def _given(inputs: Mapping[str, Array], name: str, default: int) -> int:
    return int(inputs[name][0]) if name in inputs else default


def _side(inputs: Mapping[str, Array], name: str, manifest: Manifest) -> int:
    """A height or width in pixels: the requested one, an image's, or the default."""
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
    """The number of frames: one, plus a multiple of the frames per latent frame."""
    low, high = family.limits.frames or (1, 1)
    value = _given(inputs, "frames", family.defaults.frames or 1)
    if value == 1 and "end_image" in inputs:
        raise InvalidRequest("end_image: got one for a video of 1 frame; request more frames")
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
                f"{name}: got {words(_size(inputs[name]))}, but height and width are "
                f"{words(size)} ({_MEANING}); resize the image, or leave height and width out"
            )
