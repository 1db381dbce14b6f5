"""How large a picture is, as a request may say it: sides, a bucket or an aspect ratio."""

import math
import re
from collections.abc import Mapping

from pipelines.errors import InvalidRequest
from pipelines.fields import Array, text
from pipelines.manifest import Manifest, Sides

# Height and width in pixels.
Size = tuple[int, int]

_LONGEST_BUCKET = 32
_SIZE = re.compile(r"(\d{1,6})x(\d{1,6})")
_RATIO = re.compile(r"(\d{1,6}(?:\.\d{1,6})?):(\d{1,6}(?:\.\d{1,6})?)")
_MEANING = "as width x height in pixels"


def picture_size(inputs: Mapping[str, Array], manifest: Manifest) -> tuple[Size, tuple[str, ...]]:
    """The size that a request asks for, and notes on it.

    A checkpoint with buckets is served in those alone: ``height`` and ``width`` must be one of
    them, and ``bucket`` names one, such as ``832x1248`` (width x height), or an aspect ratio, such
    as ``2:3``, which gets the nearest. Raises InvalidRequest.
    """
    sides, buckets = manifest.sides, manifest.buckets
    if not buckets:
        return (_side(inputs, "height", sides), _side(inputs, "width", sides)), ()
    named = text(inputs, "bucket", "", _LONGEST_BUCKET)
    default, notes = _bucket(named, buckets) if named else ((sides.native, sides.native), ())
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


def words(size: Size) -> str:
    """A size as people write those of pictures, width first."""
    height, width = size
    return f"{width}x{height}"


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


def _side(inputs: Mapping[str, Array], name: str, sides: Sides) -> int:
    """A picture's height or width in pixels."""
    value = _given(inputs, name, sides.native)
    if value % sides.multiple or not sides.minimum <= value <= sides.maximum:
        nearest = round(value / sides.multiple) * sides.multiple
        nearest = min(max(nearest, sides.minimum), sides.maximum)
        raise InvalidRequest(
            f"{name}: got {value}; allowed are multiples of {sides.multiple} from "
            f"{sides.minimum} to {sides.maximum}; the nearest is {nearest}"
        )
    return value
