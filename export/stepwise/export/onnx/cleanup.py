"""The last step of writing a quantized graph."""

import onnx_ir as ir


def clean_up(graph: ir.Graph) -> None:
    """Sort nodes topologically, and drop unused weights and all metadata.

    The exporter notes the origin of every node: megabytes, which earlier steps need.
    """
    graph.sort()
    drop_unused(graph)
    graph.metadata_props.clear()
    for node in graph:
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()


def drop_unused(graph: ir.Graph) -> None:
    """Remove initializers that no node reads."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
