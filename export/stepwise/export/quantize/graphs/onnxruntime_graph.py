"""Quantizes the layers of a float graph for ONNX Runtime on a CPU."""

from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from stepwise.export.fp16.convert import LARGEST
from stepwise.export.onnx.exporter import save
from stepwise.export.onnx.initializers import drop_unused, widen
from stepwise.export.quantize.graphs import bos_rows, layer_nodes, onnxruntime_ops
from stepwise.export.quantize.graphs.cleanup import clean_up
from stepwise.export.quantize.graphs.graph_editor import CONTRIB, Patch
from stepwise.export.quantize.graphs.layer_nodes import Site
from stepwise.export.quantize.graphs.packed_weights import encoded
from stepwise.export.quantize.plan import Entry
from stepwise.export.quantize.recipe import Recipe

_FLOAT, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
# Halving smaller weights would hardly shrink the file.
_HALVED = 4096


def write(source: Path, recipe: Recipe, folder: Path) -> Path:
    """Quantize the float32 graph at ``source`` and write it as ``model.onnx`` into ``folder``.

    Weights that are not quantized are stored as float16. Raises QuantizationError if graph, plan
    and layers are not of one model, or need a kernel that does not exist.
    """
    model = ir.load(source)
    widen(model.graph)
    chosen = recipe.quantized()
    places = layer_nodes.find(model.graph, [layer for layer, _ in chosen])
    patch = Patch(model.graph, model.graph[0])
    for layer, entry in chosen:
        site = places[layer.name]
        patch.place = site.product
        output = _quantized(patch, site, entry, recipe)
        if layer.begins_alike:
            output = bos_rows.join(patch, layer.name, site.input, output, recipe.first)
        site.replace(output)
    _store_halves(patch)
    clean_up(model.graph)
    model.opset_imports[CONTRIB] = 1
    return save(model, folder)


def _quantized(patch: Patch, site: Site, entry: Entry, recipe: Recipe) -> ir.Value:
    parts = list(encoded(site, entry, recipe.block))
    if not entry.rounds:
        return onnxruntime_ops.four_bits(patch, site, parts)
    if site.layer.is_linear:
        kernel = onnxruntime_ops.linear
    elif site.is_pointwise:
        kernel = onnxruntime_ops.pointwise
    else:
        kernel = onnxruntime_ops.convolution
    return kernel(patch, site, parts, recipe.activations[site.layer.name])


def _store_halves(patch: Patch) -> None:
    """Store large float weights as float16; the casts are folded when the graph is loaded."""
    patch.place = patch.graph[0]
    drop_unused(patch.graph)
    for name, value in list(patch.graph.initializers.items()):
        tensor = value.const_value
        if value.dtype != _FLOAT or tensor is None or tensor.size < _HALVED:
            continue
        if np.abs(tensor.numpy()).max() <= LARGEST:
            half = partial(_half, tensor)
            stored = patch.weight(f"{name}_half", _HALF, tensor.shape.numpy(), half)
            cast = patch.node(f"{name}_cast", "Cast", [stored], attributes={"to": _FLOAT})
            value.replace_all_uses_with(cast)


def _half(tensor: ir.TensorProtocol) -> npt.NDArray[np.float16]:
    return tensor.numpy().astype(np.float16)
