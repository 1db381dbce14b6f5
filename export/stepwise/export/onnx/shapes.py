"""The sizes at which a graph is traced, and the other ones at which it is checked."""

from collections.abc import Mapping, Sequence

from stepwise.description.family import Family
from stepwise.description.manifest import Sides
from stepwise.description.spec import Dim, axis

Shape = tuple[int, ...]
Sizes = Mapping[str, int]
# In pixels, for pictures: larger ones show no more of a graph, but take minutes and gigabytes.
LARGEST_SIDE = 256
# Neither 0 nor 1, which the tracer would take for constants.
_TRACED_BATCH, _TRACED_TEXT, _TRACED_FRAMES, _TRACED_SLICE = 2, 24, 3, 2


def traced(sides: Sides, scale: int, tokens: int) -> Sizes:
    """Sizes to trace at: two rows, a landscape of the native height, short texts.

    ``sides`` are in pixels, ``scale`` is pixels per latent, ``tokens`` is the length that the
    tokenizer pads to. Sizes are in the graphs' own units: rows, latents, tokens, frames of latents.
    """
    narrow = max(3 * sides.native // 4 // sides.multiple, 1) * sides.multiple
    return {
        "batch": _TRACED_BATCH,
        "tokens": max(3 * tokens // 4, 2),
        "text": _TRACED_TEXT,
        "height": narrow // scale,
        "width": sides.native // scale,
        "frames": _TRACED_FRAMES,
        "slice": _TRACED_SLICE,
        "first": 0,
    }


def untraced(family: Family, sides: Sides, scale: int, tokens: int) -> tuple[Sizes, Sizes]:
    """Sizes to check at: one native square with a usual text; three wide pictures.

    The wide ones have the greatest width and an odd number of patches along their height. All are
    smaller by the same factor if the native side is more than 256 pixels. Videos have five frames
    of latents, then one; slices have one frame that begins a video, then three that do not.
    """

    def patches(side: int) -> int:
        return side * min(sides.native, LARGEST_SIDE) // sides.native // sides.multiple

    latents, text = sides.multiple // scale, family.ranges["text"]
    native = patches(sides.native) * latents
    wide = {
        "height": (patches(sides.minimum) | 1) * latents,
        "width": patches(sides.maximum) * latents,
    }
    square = {"height": native, "width": native}
    whole, begun = {"frames": 5, "slice": 1, "first": 1}, {"frames": 1, "slice": 3, "first": 0}
    return (
        {"batch": 1, "tokens": tokens, "text": text.usual, **square, **whole},
        {"batch": 3, "tokens": tokens // 2, "text": text.usual // 8, **wide, **begun},
    )


def shape(named: Sequence[Dim], fixed: Sequence[int], sizes: Sizes) -> Shape:
    """A tensor's shape with the spec's named axes at ``sizes``; others are as in ``fixed``."""
    return tuple(
        _size(dim, sizes) if isinstance(dim, str) else own
        for dim, own in zip(named, fixed, strict=True)
    )


def _size(dim: str, sizes: Sizes) -> int:
    times, name = axis(dim)
    return times * sizes[name]
