"""The last step of writing a quantized graph."""

import onnx_ir as ir

from stepwise.export.onnx.initializers import drop_unused


def clean_up(graph: ir.Graph) -> None:
    """Sort nodes topologically, and drop unused weights and all metadata.

    Earlier steps need the names of modules there.
    """
    graph.sort()
    drop_unused(graph)
    graph.metadata_props.clear()
    for node in graph:
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
