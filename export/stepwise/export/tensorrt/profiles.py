"""The shapes that an engine is built for, from the spec's ranges and the checkpoint's sizes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from stepwise.description.manifest import Manifest
from stepwise.description.spec import Component, Range, Tensor
from stepwise.export.onnx.shapes import Shape, shape
from stepwise.export.repository.axis_ranges import Ranges, axis_ranges, graph_dims
from stepwise.export.repository.layout import Target
from stepwise.request.response import shrinking


@dataclass(frozen=True)
class Profile:
    """The least, usual and greatest shape of one input."""

    minimum: Shape
    usual: Shape
    maximum: Shape


Profiles = Mapping[str, Profile]


def covering(profiles: Iterable[Profiles], name: str) -> Shape:
    """The shape that covers an input in all ``profiles``, -1 where sizes differ."""
    ends = [end for p in profiles for end in (p[name].minimum, p[name].maximum)]
    return tuple(sizes[0] if len(set(sizes)) == 1 else -1 for sizes in zip(*ends, strict=True))


def profiles(target: Target, manifest: Manifest, component: Component) -> tuple[Profiles, ...]:
    """The profiles of a component's graph, each with the shapes of every input.

    If the checkpoint has buckets, there is one profile per bucket, with fixed sides. The decoder
    has one more for the previews of all buckets.
    """
    graph, ranges = graph_dims(target, component), axis_ranges(target, manifest, component)
    if manifest.buckets and component == target.checkpoint.family.decoder:
        ranges = (*ranges, {**ranges[0], **_preview_sides(manifest)})
    return tuple(
        {tensor.name: _profile(tensor, graph[tensor.name], sizes) for tensor in component.inputs}
        for sizes in ranges
    )


def _preview_sides(manifest: Manifest) -> Ranges:
    scale = manifest.vae_scale
    latents = [(height // scale, width // scale) for height, width in manifest.buckets]
    small = [(h // shrinking(h, w), w // shrinking(h, w)) for h, w in latents]
    heights, widths = zip(*small, strict=True)
    return {"height": _spread(heights), "width": _spread(widths)}


def _spread(sizes: Sequence[int]) -> Range:
    return Range(min(sizes), sorted(sizes)[len(sizes) // 2], max(sizes))


def _profile(tensor: Tensor, graph: Shape, sizes: Ranges) -> Profile:
    least, usual, greatest = (
        shape(tensor.dims, graph, {axis: getattr(size, end) for axis, size in sizes.items()})
        for end in ("minimum", "usual", "maximum")
    )
    return Profile(least, usual, greatest)
