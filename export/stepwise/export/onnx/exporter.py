"""Exports a torch module to an ONNX graph."""

import inspect
import logging
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import onnx
import onnx_ir as ir
import torch
from onnxscript import optimizer, rewriter
from onnxscript.rewriter import onnx_fusions
from onnxscript.rewriter.rules.common import slice_split_rule
from torch.utils._pytree import tree_map_only

from stepwise.description.graph_files import GRAPH
from stepwise.description.spec import Component, Dim, Tensor
from stepwise.export.errors import GraphError
from stepwise.export.loading.mapped_weights import faked
from stepwise.export.modules.exportable import Exportable
from stepwise.export.onnx import initializers
from stepwise.export.onnx.graph_files import LARGEST_INLINE_BYTES, TRACE
from stepwise.export.onnx.module_names import drop_other_notes
from stepwise.export.onnx.shapes import Sizes

# onnxscript's default rules without the one that replaces two slices by a split. It lists all nodes
# of the graph at each node, which takes most of the optimizer's time for a UNet, and matches
# nothing in our graphs. The optimizer has no argument for rules.
RULES = tuple(rule for rule in rewriter._DEFAULT_REWRITE_RULES if rule is not slice_split_rule)
# The exporter's native operator set; any other would go through a version converter.
OPSET = 18
_TYPES = {
    "FP32": onnx.TensorProto.FLOAT,
    "FP16": onnx.TensorProto.FLOAT16,
    "INT32": onnx.TensorProto.INT32,
    "INT64": onnx.TensorProto.INT64,
    "UINT8": onnx.TensorProto.UINT8,
}


def write_graph(
    module: Exportable,
    component: Component,
    sizes: Sizes,
    folder: Path,
    *,
    trace: Path | None = None,
    narrow: bool = False,
) -> Path:
    """Write ``model.onnx`` with the weights of ``module`` into ``folder``; return its path.

    ``trace`` is the path of a trace of a module with the same configuration, which is written if it
    is absent. The graph computes in float32; the axes that the spec names are dynamic. Weights are
    float32 too or, if ``narrow``, in the checkpoint's types. They are read one at a time. Raises
    GraphError if the graph's inputs, outputs or axes differ from the spec.
    """
    with TemporaryDirectory() as scratch:
        trace = trace or Path(scratch, TRACE)
        if not trace.is_file():
            write_trace(module, component, sizes, trace)
        model = filled(trace, module)
    if narrow:
        initializers.narrow(model.graph)
    path = save(model, folder)
    initializers.release(model.graph)
    check_graph(path, component)
    return path


def save(model: ir.Model, folder: Path) -> Path:
    """Write ``model.onnx`` into ``folder``, with large weights in a file next to it."""
    path = folder / GRAPH
    tensors = [value.const_value for value in model.graph.initializers.values()]
    large = sum(tensor.nbytes for tensor in tensors if tensor) > LARGEST_INLINE_BYTES
    ir.save(model, path, external_data=f"{GRAPH}.data" if large else None)
    return path


def write_trace(
    module: Exportable, component: Component, sizes: Sizes, path: Path, opset: int = OPSET
) -> None:
    """Trace ``module`` at ``sizes`` into ``path``, with only names and shapes of its weights.

    A trace depends on no weight, so modules of one configuration share it.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), faked(module):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            capture(module, component, sizes),
            input_names=[tensor.name for tensor in component.inputs],
            output_names=[tensor.name for tensor in component.outputs],
            dynamic_shapes=_named_axes(module, component),
            opset_version=opset,
            dynamo=True,
            verbose=False,
            optimize=False,
        )
    if program is None:
        raise GraphError(f"{component.name}: the exporter gave no program")
    initializers.empty(program.model.graph, module.state_dict())
    drop_other_notes(program.model.graph)
    ir.save(program.model, path)


def filled(trace: Path, module: Exportable) -> ir.Model:
    """The optimized graph of a trace with the weights of ``module``, which are read on saving.

    It is optimized only now, as folding constants and merging equal ones needs the weights.
    """
    model = ir.load(trace)
    initializers.fill(model.graph, module.state_dict())
    with mock.patch.object(rewriter, "_DEFAULT_REWRITE_RULES", RULES):
        optimizer.optimize_ir(model)
    onnx_fusions.fuse(model)
    return model


def capture(module: Exportable, component: Component, sizes: Sizes) -> torch.export.ExportedProgram:
    """Capture ``module`` at ``sizes``, with the axes that the spec names dynamic.

    Called directly because ``torch.onnx.export`` defers guards to runtime assertions, which fails
    for UNets, and then captures a second time with TorchDynamo. The graph has no assertions, so
    a guard on a dynamic axis must fail here.
    """
    named = _named_axes(module, component)
    dynamic = tree_map_only(str, lambda _: torch.export.Dim.DYNAMIC, named)
    return torch.export.export(module, module.example(sizes), dynamic_shapes=dynamic, strict=False)


def check_graph(path: Path, component: Component) -> None:
    """Raise GraphError if a graph is invalid or its tensors are not those of the spec."""
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise GraphError(f"{path} is no valid ONNX graph: {error}") from error
    graph = onnx.load(str(path), load_external_data=False).graph
    for expected, got in ((component.inputs, graph.input), (component.outputs, graph.output)):
        names = [tensor.name for tensor in expected]
        if names != [value.name for value in got]:
            raise GraphError(
                f"{path} has {[value.name for value in got]} where the spec has {names}"
            )
        for tensor, value in zip(expected, got, strict=True):
            _check_tensor(component, tensor, value.type.tensor_type)


def _check_tensor(component: Component, tensor: Tensor, got: Any) -> None:
    dims = [dim.dim_param or dim.dim_value for dim in got.shape.dim]
    if got.elem_type != _TYPES[tensor.dtype] or not _matches(tensor.dims, dims):
        kind = onnx.TensorProto.DataType.Name(got.elem_type)
        raise GraphError(
            f"{component.name}: its graph's {tensor.name} is {kind} {dims} where the spec has "
            f"{tensor.dtype} {list(tensor.dims)}; named axes must be symbolic, others fixed"
        )


def _matches(wanted: tuple[Dim, ...], got: list[int | str]) -> bool:
    return len(wanted) == len(got) and all(map(_fits, wanted, got))


def _fits(wanted: Dim, got: int | str) -> bool:
    """Whether a graph's axis is symbolic if the spec names it, and else has an allowed size."""
    if isinstance(wanted, str) or isinstance(got, str):
        return isinstance(wanted, str) and isinstance(got, str)
    return wanted in (-1, got)


def _named_axes(module: Exportable, component: Component) -> tuple[Any, ...]:
    """The dynamic axes of each argument of ``forward``; ``*arguments`` share one entry."""
    axes = [_axes(tensor) for tensor in component.inputs]
    arguments = inspect.signature(module.forward).parameters.values()
    named = sum(argument.kind is not argument.VAR_POSITIONAL for argument in arguments)
    return (*axes[:named], *([tuple(axes[named:])] if axes[named:] else []))


def _axes(tensor: Tensor) -> dict[int, str]:
    return {axis: dim for axis, dim in enumerate(tensor.dims) if isinstance(dim, str)}
