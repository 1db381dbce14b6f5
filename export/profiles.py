"""The shapes that an engine is built for: from the spec's ranges and the checkpoint's own sizes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from export.target import GRAPH, Target
from pipelines.conditioning import CONDITIONING
from pipelines.manifest import Manifest
from pipelines.spec import Component, Dim, Range, ensemble_name

Shape = tuple[int, ...]
# Previews are decoded from latents pooled by at most this much along a side.
_LARGEST_POOLING = 4


@dataclass(frozen=True)
class Profile:
    """The least, usual and greatest shape of one input."""

    minimum: Shape
    usual: Shape
    maximum: Shape

    @property
    def dims(self) -> Shape:
        """The one shape that covers them all: -1 where they differ."""
        pairs = zip(self.minimum, self.maximum, strict=True)
        return tuple(low if low == high else -1 for low, high in pairs)


def profiles(target: Target, manifest: Manifest, component: Component) -> dict[str, Profile]:
    """The profile of each input of a component's graph, in units of the graph.

    Texts have the one length that their tokenizers pad to.
    """
    ranges = _ranges(target, manifest, component)
    graph = _graph_dims(target, component)
    return {
        tensor.name: Profile(
            *(
                _shape(tensor.dims, graph[tensor.name], {k: getattr(r, end) for k, r in ranges})
                for end in ("minimum", "usual", "maximum")
            )
        )
        for tensor in component.inputs
    }


def _shape(named: tuple[Dim, ...], graph: Shape, sizes: Mapping[str, int]) -> Shape:
    """A graph's shape with the spec's named axes at ``sizes``."""
    return tuple(
        sizes[dim] if isinstance(dim, str) else fixed
        for dim, fixed in zip(named, graph, strict=True)
    )


def _ranges(
    target: Target, manifest: Manifest, component: Component
) -> tuple[tuple[str, Range], ...]:
    pipeline, sides = target.checkpoint.pipeline, manifest.sides
    batch = pipeline.ranges["batch"]
    rows = component.max_batch or batch.maximum
    pooling = _LARGEST_POOLING if component == pipeline.decoder else 1
    latents = Range(
        minimum=max(sides.minimum // manifest.vae_scale // pooling, 1),
        usual=sides.native // manifest.vae_scale,
        maximum=sides.maximum // manifest.vae_scale,
    )
    tokens = manifest.tokens.get(component.name, 0)
    text = _text_length(target, manifest)
    return (
        ("batch", Range(1, min(batch.usual, rows), rows)),
        ("tokens", Range(tokens, tokens, tokens)),
        ("text", Range(text, text, text)),
        ("height", latents),
        ("width", latents),
    )


def _text_length(target: Target, manifest: Manifest) -> int:
    """The tokens that the denoiser reads, found by putting blank embeddings together."""
    pipeline = target.checkpoint.pipeline
    blank = {}
    for role, encoder in pipeline.encodings():
        graph = _graph_dims(target, encoder)
        sizes = {"batch": 1, "tokens": manifest.tokens[encoder.name]}
        for tensor in encoder.outputs:
            shape = _shape(tensor.dims, graph[tensor.name], sizes)
            blank[ensemble_name(role, encoder, tensor)] = np.zeros(shape, np.float32)
    conditioning = CONDITIONING[pipeline.family](blank, "")
    for tensor in pipeline.denoiser.inputs:
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
