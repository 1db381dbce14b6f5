"""The weights of a traced graph, read one at a time while it is written."""

from collections.abc import Callable, Mapping
from functools import partial

import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor
from torch import Tensor

from stepwise.export.loading.mapped_weights import Stored

_TYPES = {torch.float16: ir.DataType.FLOAT16, torch.bfloat16: ir.DataType.BFLOAT16}
_SINGLE = ir.DataType.FLOAT
# Makes another view of a weight.
Arrangement = Callable[[Tensor], Tensor]
# The exporter folds constants of up to this many values.
_FOLDED = 8192


class Weight(ir.LazyTensor):
    """A float32 weight of a torch module, viewed through ``arrange``."""

    def __init__(self, data: Tensor, name: str, arrange: Arrangement | None = None) -> None:
        """``data`` may be ``Stored``."""
        self.data, self.arrange = data, arrange
        blank = torch.empty(data.shape, device="meta")
        shape = ir.Shape(arrange(blank).shape if arrange else data.shape)
        super().__init__(
            partial(_tensor, data, arrange, name), dtype=_SINGLE, shape=shape, name=name
        )

    def stored(self, name: str) -> ir.TensorProtocol | None:
        """The weight in the checkpoint's type; None if that is float32 or a LoRA adds to it."""
        data = self.data
        if not isinstance(data, Stored) or data.additions or data.data_.dtype not in _TYPES:
            return None
        dtype = _TYPES[data.data_.dtype]
        evaluate = partial(_tensor, data.data_, self.arrange, name)
        return ir.LazyTensor(evaluate, dtype=dtype, shape=ir.Shape(self.shape.numpy()), name=name)


def _tensor(data: Tensor, arrange: Arrangement | None, name: str) -> ir.TensorProtocol:
    with torch.no_grad():
        values = data.single() if isinstance(data, Stored) else data.detach()
        return TorchTensor(arrange(values).contiguous() if arrange else values, name=name)


def empty(graph: ir.Graph, weights: Mapping[str, Tensor]) -> None:
    """Reduce the weights in a graph to the names and shapes that ``fill`` needs to restore them."""
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if name in weights and tensor is not None:
            value.const_value = ir.ExternalTensor(
                "weights",
                0,
                tensor.nbytes,
                tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=name,
            )


def fill(graph: ir.Graph, weights: Mapping[str, Tensor]) -> None:
    """Give a graph that was traced with empty weights the real ones.

    Transposed weights and parts of weights become weights that are arranged as they are read; the
    exporter would keep a copy of each.
    """
    for name, value in list(graph.initializers.items()):
        if name in weights and weights[name].is_floating_point():
            for node in list(value.consumers()):
                arrange = _arrangement(node)
                if arrange:
                    _arranged(graph, node, weights[name], arrange)
            if value.uses():
                value.const_value = _lazy(weights[name], name)
            else:
                del graph.initializers[name]


def _arrangement(node: ir.Node) -> Arrangement | None:
    """The view that a node makes of its first input; None if it makes none."""
    if node.op_type == "Transpose":
        return partial(torch.permute, dims=tuple(node.attributes["perm"].as_ints()))
    place = node.inputs[1] if node.op_type == "Gather" else None
    index = ir.convenience.get_const_tensor(place) if place else None
    if index is None or index.size != 1:
        return None
    axis, chosen = node.attributes.get_int("axis", 0), index.numpy()
    return partial(torch.select, dim=axis, index=int(chosen)) if chosen.ndim == 0 else None


def _lazy(data: Tensor, name: str, arrange: Arrangement | None = None) -> ir.TensorProtocol:
    """A weight that is read when it is written; a small one or a vector is read now.

    The optimizer may fold those, or merge equal ones.
    """
    if data.numel() > _FOLDED and data.dim() > 1:
        return Weight(data, name, arrange)
    return ir.Tensor(_tensor(data, arrange, name).numpy().copy(), name=name)


def _arranged(graph: ir.Graph, node: ir.Node, weight: Tensor, arrange: Arrangement) -> None:
    """Replace ``node`` by an arranged initializer with the name of the node's output."""
    (output,) = node.outputs
    tensor = _lazy(weight, str(output.name), arrange)
    value = _initializer(tensor, _SINGLE)
    output.replace_all_uses_with(value)
    graph.remove(node, safe=True)
    graph.register_initializer(value)


def narrow(graph: ir.Graph) -> None:
    """Store weights in the checkpoint's types, and cast each to float32 before it is used."""
    places = {node: place for place, node in enumerate(graph)}
    for name, value in list(graph.initializers.items()):
        weight = value.const_value
        stored = weight.stored(f"{name}_stored") if isinstance(weight, Weight) else None
        if stored is not None:
            del graph.initializers[name]
            value.const_value = None
            kept = _initializer(stored, stored.dtype)
            graph.register_initializer(kept)
            cast = ir.node("Cast", [kept], {"to": _SINGLE})
            # Right before its first use: earlier, it would only take memory.
            graph.insert_before(min(value.consumers(), key=places.__getitem__), cast)
            value.replace_all_uses_with(cast.outputs[0])
            cast.outputs[0].name = name
            cast.outputs[0].shape, cast.outputs[0].dtype = value.shape, _SINGLE


def _initializer(tensor: ir.TensorProtocol, dtype: ir.DataType) -> ir.Value:
    shape = ir.Shape(tensor.shape.numpy())
    value = ir.Value(name=tensor.name, shape=shape, type=ir.TensorType(dtype))
    value.const_value = tensor
    return value


def drop_unused(graph: ir.Graph) -> None:
    """Remove weights that no node reads."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def release(graph: ir.Graph) -> None:
    """Drop all weights: the exporter's rewriter keeps parts of a graph after it is done."""
    for value in graph.initializers.values():
        value.const_value = None


def casts_weight(node: ir.Node) -> bool:
    """Whether a node casts a stored weight to float32, as ``narrow`` leaves them."""
    return node.op_type == "Cast" and node.inputs[0] is not None and node.inputs[0].is_initializer()


def widen(graph: ir.Graph) -> None:
    """Undo ``narrow`` in a graph from a file: weights become float32 as they are read."""
    for node in [node for node in graph if casts_weight(node)]:
        narrow, (output,) = node.inputs[0], node.outputs
        assert narrow is not None
        assert narrow.const_value is not None
        tensor, name = narrow.const_value, str(output.name)
        shape = ir.Shape(tensor.shape.numpy())
        wide = ir.LazyTensor(partial(_single, tensor, name), dtype=_SINGLE, shape=shape, name=name)
        value = _initializer(wide, _SINGLE)
        output.replace_all_uses_with(value)
        graph.remove(node, safe=True)
        del graph.initializers[str(narrow.name)]
        graph.register_initializer(value)


def _single(tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    return ir.Tensor(tensor.numpy().astype("float32"), name=name)
