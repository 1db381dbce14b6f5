"""Finds the layers of a UNet in its float graph."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from stepwise.export.errors import QuantizationError
from stepwise.export.onnx.module_names import module_of
from stepwise.export.quantize.graphs.graph_editor import Patch
from stepwise.export.quantize.layers import Layer

Array = npt.NDArray[Any]

# The operators of linear layers and convolutions.
_PRODUCTS = ("Conv", "Gemm", "MatMul")
# The exporter's wrapper holds the UNet under this name.
_WRAPPER = "model."


@dataclass(frozen=True)
class Site:
    """A layer's part of a graph: the nodes ``product`` and, if a bias is separate, ``addition``.

    ``weight`` has the graph's order of axes, ``bias`` is (out,).
    """

    layer: Layer
    product: ir.Node
    addition: ir.Node | None
    weight: ir.TensorProtocol
    bias: ir.Value | None

    @property
    def input(self) -> ir.Value:
        """The layer's input."""
        value = self.product.inputs[0]
        assert value is not None
        return value

    @property
    def output(self) -> ir.Value:
        """The layer's output."""
        return (self.addition or self.product).outputs[0]

    @property
    def is_turned(self) -> bool:
        """Whether the graph has the weight as (in, out)."""
        return self.product.op_type == "MatMul"

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of ``product``."""
        return {name: attribute.value for name, attribute in self.product.attributes.items()}

    @property
    def is_pointwise(self) -> bool:
        """Whether it is a 1 x 1 convolution without strides, padding or groups."""
        given = self.attributes
        moves = (*given.get("strides", ()), given.get("group", 1))
        return (
            self.layer.shape[2:] == (1, 1) and set(moves) == {1} and not any(given.get("pads", ()))
        )

    def read(self) -> Array:
        """The weight, (out, in) or (out, in, height, width)."""
        values = self.weight.numpy()
        return values.T if self.is_turned else values

    def read_bias(self) -> Array | None:
        """The bias (out,), None if there is none."""
        if self.bias is None:
            return None
        assert self.bias.const_value is not None
        return self.bias.const_value.numpy()

    def parts(self) -> list[ir.Value]:
        """The layer's input, or the parts of it if the layer is split.

        Raises QuantizationError if the graph does not concatenate the input at the layer's split.
        """
        if self.layer.split is None:
            return [self.input]
        joined = self.input.producer()
        if joined is None or joined.op_type != "Concat" or _width(joined) != self.layer.split:
            raise QuantizationError(
                f"the graph does not concatenate the input of {self.layer.name} at channel "
                f"{self.layer.split}; export the graph and find the layers from the same checkpoint"
            )
        return [value for value in joined.inputs if value is not None]

    def again(
        self,
        patch: Patch,
        value: ir.Value,
        weight: ir.Value,
        bias: ir.Value | None,
        suffix: str = "",
    ) -> ir.Value:
        """The layer computed from another input, weight and bias."""
        kind, name = self.product.op_type, f"{self.layer.name}/"
        whole = self.is_turned or bias is None
        inputs = [value, weight] if whole else [value, weight, bias]
        output = patch.node(f"{name}{kind}{suffix}", kind, inputs, attributes=self.attributes)
        if self.is_turned and bias is not None:
            output = patch.node(f"{name}Add{suffix}", "Add", [output, bias])
        return output

    def replace(self, value: ir.Value) -> None:
        """Replace the output by ``value`` and remove the layer's nodes."""
        graph, output = self.product.graph, self.output
        assert graph is not None
        value.shape = output.shape
        output.replace_all_uses_with(value, replace_graph_outputs=True)
        for node in (self.addition, self.product):
            if node is not None:
                graph.remove(node, safe=True)


def find(graph: ir.Graph, layers: Iterable[Layer]) -> Mapping[str, Site]:
    """The site of each layer in a float32 graph that names the modules of its nodes.

    Raises QuantizationError for a layer that is missing or occurs more than once.
    """
    nodes: dict[str, list[ir.Node]] = {}
    for node in graph:
        if node.op_type in _PRODUCTS and _is_initializer(node.inputs[1]):
            nodes.setdefault(module_of(node).removeprefix(_WRAPPER), []).append(node)
    return {layer.name: _site(layer, nodes.get(layer.name, [])) for layer in layers}


def _site(layer: Layer, nodes: list[ir.Node]) -> Site:
    if len(nodes) != 1:
        raise QuantizationError(
            f"the graph has {len(nodes)} products of the layer {layer.name} instead of one; "
            "export the graph and find the layers from the same checkpoint"
        )
    (product,) = nodes
    _, weight, *biases = product.inputs
    assert weight is not None
    assert weight.const_value is not None
    addition, bias = (None, biases[0]) if biases else _addition(product)
    return Site(layer, product, addition, weight.const_value, bias)


def _addition(product: ir.Node) -> tuple[ir.Node | None, ir.Value | None]:
    """The node of the same module that adds a bias to a product, and the bias."""
    consumers = list(product.outputs[0].consumers())
    if len(consumers) == 1 and consumers[0].op_type == "Add":
        (addition,) = consumers
        for value in addition.inputs:
            if module_of(addition) == module_of(product) and _is_initializer(value):
                return addition, value
    return None, None


def _is_initializer(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer()


def _width(joined: ir.Node) -> int | ir.SymbolicDim | None:
    """The number of channels of the first value that a node concatenates."""
    first = joined.inputs[0]
    return None if first is None or first.shape is None else first.shape[1]
