"""The last step of a quantized graph."""

import onnx_ir as ir


def clean_up(graph: ir.Graph) -> None:
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


def drop_unused(graph: ir.Graph) -> None:
    """Remove initializers that no node reads."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
