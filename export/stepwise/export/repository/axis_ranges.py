"""The sizes that the dynamic axes of a component's graph have while the pipeline runs.

They follow from the family's ranges, the checkpoint's sizes and its tokenizers.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx

from stepwise.description.axis_limits import axes, fits
from stepwise.description.family import Family
from stepwise.description.graph_files import GRAPH
from stepwise.description.manifest import Manifest, Sides
from stepwise.description.spec import Component, Range, prompt_tensor
from stepwise.export.onnx.shapes import Shape, shape
from stepwise.export.repository.layout import Target
from stepwise.request.resolve import resolve
from stepwise.request.response import LARGEST_SHRINKING

Ranges = Mapping[str, Range]


def axis_ranges(target: Target, manifest: Manifest, component: Component) -> tuple[Ranges, ...]:
    """The ranges of a component's axes by name, once for each set of sides that it runs at.

    Texts have a single length, to which their tokenizers pad. If the checkpoint has buckets, the
    sides of latents are those of one bucket at a time, without its previews. The text encoders have
    to be exported before the denoiser, because their graphs decide how many tokens it reads.
    """
    family = target.checkpoint.family
    rows = component.max_batch or family.max_rows
    sizes = {
        **family.ranges,
        "batch": Range(1, min(family.ranges["batch"].usual, rows), rows),
        "tokens": _only(manifest.tokens.get(component.name, 0)),
    }
    if component == family.denoiser:
        sizes["text"] = _only(_text_length(target, manifest))
    return tuple(sizes | sides for sides in _sides(family, manifest, component))


def largest_sizes(target: Target, manifest: Manifest, component: Component) -> list[dict[str, int]]:
    """The largest sizes of the dynamic axes of a component's inputs that the pipeline sends.

    There is one for each bucket, except those that another one contains.
    """
    names = sorted(axes({tensor.name: tensor.dims for tensor in component.inputs}))
    found: list[dict[str, int]] = []
    for ranges in axis_ranges(target, manifest, component):
        sizes = {name: ranges[name].maximum for name in names}
        if not any(fits(sizes, other) for other in found):
            found = [*(other for other in found if not fits(other, sizes)), sizes]
    return found


def graph_dims(target: Target, component: Component) -> dict[str, Shape]:
    """The shape of each input and output of a graph, 0 where it is dynamic."""
    path: Path = target.version(component) / GRAPH
    graph = onnx.load(str(path), load_external_data=False).graph
    return {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.output)
    }


def _sides(family: Family, manifest: Manifest, component: Component) -> Iterator[dict[str, Range]]:
    """The height and width of latents, by bucket; empty for text encoders."""
    if component in family.encoders:
        yield {}
    elif manifest.buckets:
        for height, width in manifest.buckets:
            yield {
                "height": _only(height // manifest.vae_scale),
                "width": _only(width // manifest.vae_scale),
            }
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


def _only(size: int) -> Range:
    return Range(size, size, size)


def _text_length(target: Target, manifest: Manifest) -> int:
    """The number of tokens that the denoiser reads, found by joining blank embeddings."""
    family = target.checkpoint.family
    blank = {}
    for role, encoder in family.encodings():
        graph = graph_dims(target, encoder)
        sizes = {"batch": 1, "tokens": manifest.tokens[encoder.name]}
        for tensor in encoder.outputs:
            size = shape(tensor.dims, graph[tensor.name], sizes)
            blank[prompt_tensor(role, encoder, tensor)] = np.zeros(size, np.float32)
    settings = resolve({}, family, manifest, caps={}, arrived=0.0)
    conditioning = family.conditioning(blank, "", settings)
    for tensor in family.denoiser.inputs:
        if "text" in tensor.dims:
            return conditioning[tensor.name].shape[tensor.dims.index("text") - 1]
    return 0
