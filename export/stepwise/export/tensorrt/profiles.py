"""The shapes that an engine is built for, from the spec's ranges and the checkpoint's sizes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from stepwise.description.family import Family
from stepwise.description.graph_files import GRAPH
from stepwise.description.manifest import Manifest, Sides
from stepwise.description.spec import Component, Range, Tensor, ensemble_name
from stepwise.export.onnx.shapes import shape
from stepwise.export.repository.layout import Target
from stepwise.request.resolve import resolve
from stepwise.request.response import LARGEST_SHRINKING, shrinking

Shape = tuple[int, ...]


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

    Texts have a single length, to which their tokenizers pad. If the checkpoint has buckets, inputs
    of latents get one profile per bucket, with fixed sides.
    """
    family, graph = target.checkpoint.family, _graph_dims(target, component)
    rows = component.max_batch or family.ranges["batch"].maximum
    sizes = {
        **family.ranges,
        "batch": Range(1, min(family.ranges["batch"].usual, rows), rows),
        "tokens": _only(manifest.tokens.get(component.name, 0)),
        "text": _only(_text_length(target, manifest)),
    }
    return tuple(
        {
            tensor.name: _profile(tensor, graph[tensor.name], sizes | sides)
            for tensor in component.inputs
        }
        for sides in _sides(family, manifest, component)
    )


def _profile(tensor: Tensor, graph: Shape, sizes: Mapping[str, Range]) -> Profile:
    least, usual, greatest = (
        shape(tensor.dims, graph, {axis: getattr(size, end) for axis, size in sizes.items()})
        for end in ("minimum", "usual", "maximum")
    )
    return Profile(least, usual, greatest)


def _sides(family: Family, manifest: Manifest, component: Component) -> Iterator[dict[str, Range]]:
    """The height and width of latents in each profile; empty for text encoders."""
    if component in family.encoders:
        yield {}
    elif manifest.buckets:
        yield from _bucket_sides(manifest, previews=component == family.decoder)
    else:
        sides, scale = manifest.sides, manifest.vae_scale
        pooling = LARGEST_SHRINKING if component == family.decoder else 1
        latents = Range(
            minimum=max(sides.minimum // scale // pooling, 1),
            usual=sides.native // scale,
            maximum=sides.maximum // scale,
        )
        if manifest.video and component == family.denoiser:
            yield _patches(latents, family.ranges["frames"], manifest.video.patch)
        elif manifest.video:
            latents = _tiled(latents, sides, manifest.video.tile, scale)
            yield {"height": latents, "width": latents}
        else:
            yield {"height": latents, "width": latents}


def _patches(latents: Range, frames: Range, patch: int) -> dict[str, Range]:
    """The sides of a video's latents, and the number of its patches."""
    least, usual, greatest = (
        count * (side // patch) ** 2
        for count, side in zip(_ends(frames), _ends(latents), strict=True)
    )
    return {"height": latents, "width": latents, "patches": Range(least, usual, greatest)}


def _ends(size: Range) -> tuple[int, int, int]:
    return size.minimum, size.usual, size.maximum


def _tiled(latents: Range, sides: Sides, tile: int, scale: int) -> Range:
    """The sides of an autoencoder's input for a frame: at most those of a tile.

    The last tile in a row has the remainder, which may be the least step of a side.
    """
    if sides.maximum <= tile:
        return latents
    return Range(
        minimum=min(latents.minimum, sides.multiple // scale),
        usual=min(latents.usual, tile // scale),
        maximum=tile // scale,
    )


def _bucket_sides(manifest: Manifest, previews: bool) -> Iterator[dict[str, Range]]:
    """The sides of each bucket, and one range for the previews of all buckets."""
    scale = manifest.vae_scale
    latents = [(height // scale, width // scale) for height, width in manifest.buckets]
    for height, width in latents:
        yield {"height": _only(height), "width": _only(width)}
    if previews:
        small = [(h // shrinking(h, w), w // shrinking(h, w)) for h, w in latents]
        heights, widths = zip(*small, strict=True)
        yield {"height": _spread(heights), "width": _spread(widths)}


def _only(size: int) -> Range:
    return Range(size, size, size)


def _spread(sizes: Sequence[int]) -> Range:
    return Range(min(sizes), sorted(sizes)[len(sizes) // 2], max(sizes))


def _text_length(target: Target, manifest: Manifest) -> int:
    """The number of tokens that the denoiser reads, found by joining blank embeddings."""
    family = target.checkpoint.family
    blank = {}
    for role, encoder in family.encodings():
        graph = _graph_dims(target, encoder)
        sizes = {"batch": 1, "tokens": manifest.tokens[encoder.name]}
        for tensor in encoder.outputs:
            size = shape(tensor.dims, graph[tensor.name], sizes)
            blank[ensemble_name(role, encoder, tensor)] = np.zeros(size, np.float32)
    settings = resolve({}, family, manifest, caps={}, arrived=0.0)
    conditioning = family.conditioning(blank, "", settings)
    for tensor in family.denoiser.inputs:
        if "text" in tensor.dims:
            return conditioning[tensor.name].shape[tensor.dims.index("text") - 1]
    return 0


def _graph_dims(target: Target, component: Component) -> dict[str, Shape]:
    """The shape of each input and output of a graph, 0 where it is dynamic."""
    path: Path = target.version(component) / GRAPH
    graph = onnx.load(str(path), load_external_data=False).graph
    return {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.output)
    }
