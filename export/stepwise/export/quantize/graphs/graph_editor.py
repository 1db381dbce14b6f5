"""Adds the nodes and weights that replace a layer in a graph."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

# The first operator set with INT4. The exporter's operators compute the same in it.
OPSET = 21
# ONNX Runtime's own operators.
CONTRIB = "com.microsoft"


@dataclass
class Patch:
    """Inserts new nodes into a graph, before the node ``place``.

    Values in ``made`` are made once, by their names, and shared by all layers.
    """

    graph: ir.Graph
    place: ir.Node
    made: dict[str, ir.Value] = field(default_factory=dict)

    def node(
        self,
        name: str,
        operator: str,
        inputs: Sequence[ir.Value | None],
        dtype: ir.DataType = ir.DataType.FLOAT,
        *,
        attributes: Mapping[str, Any] | None = None,
        domain: str = "",
    ) -> ir.Value:
        """Insert a node and return its output, of type ``dtype``; both are called ``name``."""
        node = ir.node(operator, inputs, attributes, domain=domain, name=name)
        (output,) = node.outputs
        output.name, output.dtype = name, dtype
        self.graph.insert_before(self.place, node)
        return output

    def once(self, name: str, make: Callable[[], ir.Value]) -> ir.Value:
        """The value called ``name``, from ``make`` on its first use."""
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    def constant(self, name: str, values: npt.NDArray[Any] | np.generic) -> ir.Value:
        """A small initializer."""
        return self.once(name, lambda: self._register(ir.tensor(np.asarray(values), name=name)))

    def weight(
        self,
        name: str,
        dtype: ir.DataType,
        shape: Sequence[int],
        compute: Callable[[], npt.NDArray[Any]],
    ) -> ir.Value:
        """An initializer that computes its values while it is written."""

        def evaluate() -> ir.TensorProtocol:
            return ir.Tensor(np.ascontiguousarray(compute()), dtype=dtype, name=name)

        shaped = ir.Shape(shape)
        return self._register(ir.LazyTensor(evaluate, dtype=dtype, shape=shaped, name=name))

    def _register(self, tensor: ir.TensorProtocol) -> ir.Value:
        shape = ir.Shape(tensor.shape.numpy())
        value = ir.Value(name=tensor.name, shape=shape, type=ir.TensorType(tensor.dtype))
        value.const_value = tensor
        self.graph.register_initializer(value)
        return value
