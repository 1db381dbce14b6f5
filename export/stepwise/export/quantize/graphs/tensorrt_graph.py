"""Quantizes the layers of a float graph for TensorRT, which fuses Q/DQ pairs into kernels.

Engines are strongly typed: a layer computes in INT8 if Q/DQ pairs frame its inputs, and all others
in the types of a float16 graph. 4-bit weights only save storage: TensorRT widens them to float16 to
multiply (W4A16).
"""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from stepwise.export.families.base import Keep
from stepwise.export.fp16.convert import convert
from stepwise.export.onnx.exporter import save
from stepwise.export.onnx.initializers import widen
from stepwise.export.quantize.calibration.activation_ranges import Range
from stepwise.export.quantize.graphs import bos_rows, layer_nodes
from stepwise.export.quantize.graphs.cleanup import clean_up
from stepwise.export.quantize.graphs.graph_editor import OPSET, Patch
from stepwise.export.quantize.graphs.layer_nodes import Site
from stepwise.export.quantize.graphs.packed_weights import Coded, encoded
from stepwise.export.quantize.plan import Entry
from stepwise.export.quantize.recipe import Recipe

_INT8, _INT4 = ir.DataType.INT8, ir.DataType.INT4


def write(source: Path, recipe: Recipe, keep: Keep, folder: Path) -> Path:
    """Quantize the float32 graph at ``source`` and write it as ``model.onnx`` into ``folder``.

    ``keep`` selects the nodes that stay in float32. Raises QuantizationError if graph, plan and
    layers are not of one model, or need a kernel that does not exist, and PrecisionError for
    weights that float16 cannot hold.
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
    model.graph.sort()
    convert(model.graph, keep)
    clean_up(model.graph)
    model.opset_imports[""] = OPSET
    path = save(model, folder)
    onnx.checker.check_model(str(path), full_check=True)
    return path


def _quantized(patch: Patch, site: Site, entry: Entry, recipe: Recipe) -> ir.Value:
    parts = list(encoded(site, entry, recipe.block))
    if entry.weight_bits == 4:
        return site.again(patch, site.input, _weight(patch, parts[0], ""), site.bias)
    ranges, total = recipe.activations[site.layer.name].inputs, None
    for number, (part, ranged, value) in enumerate(zip(parts, ranges, site.parts(), strict=True)):
        suffix, bias = (str(number), None) if number else ("", site.bias)
        framed, weight = _framed(patch, value, ranged), _weight(patch, part, suffix)
        output = site.again(patch, framed, weight, bias, suffix)
        total = patch.node(f"{site.layer.name}/Sum", "Add", [total, output]) if total else output
    assert total is not None
    return total


def _framed(patch: Patch, value: ir.Value, ranged: Range) -> ir.Value:
    """``value`` rounded to int8 and back; layers that read it in the same range share this."""
    scale = np.float32(ranged.symmetric_step)
    grid = [patch.constant(f"float_{scale!s}", scale), patch.constant("int8_0", np.int8(0))]
    name = f"{value.name}_{scale!s}"

    def make() -> ir.Value:
        levels = patch.node(f"{name}/QuantizeLinear", "QuantizeLinear", [value, *grid], _INT8)
        framed = patch.node(f"{name}/DequantizeLinear", "DequantizeLinear", [levels, *grid])
        framed.shape = value.shape
        return framed

    return patch.once(name, make)


def _weight(patch: Patch, part: Coded, suffix: str) -> ir.Value:
    """A weight with one scale per output or, in 4 bits, per block of its inputs."""
    name, turned = part.site.layer.name, part.site.is_turned
    scales = part.scales.numpy()[..., 0]
    attributes = {"axis": int(turned)}
    if part.bits == 4:
        attributes = {"axis": int(not turned), "block_size": part.block}
    else:
        scales = scales[:, 0]
    inputs = [
        part.initializer(patch, f"{name}/weight{suffix}", _INT4 if part.bits == 4 else _INT8),
        patch.constant(f"{name}/scales{suffix}", scales.T if turned else scales),
    ]
    kind = "DequantizeLinear"
    return patch.node(f"{name}/{kind}{suffix}", kind, inputs, attributes=attributes)
