"""The last step of a quantized graph."""

import onnx_ir as ir

from export.precision import drop_unused


def tidy(graph: ir.Graph) -> None:
    """Put nodes into an order that can be run, and drop what nobody needs to run them.

    The exporter leaves a note of its origin on every node: megabytes, which are wanted until now.
    """
    graph.sort()
    drop_unused(graph)
    graph.metadata_props.clear()
    for node in graph:
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
