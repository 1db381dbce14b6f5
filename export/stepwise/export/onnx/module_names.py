"""The torch modules that the nodes of a graph were traced from."""

import ast
import re
from itertools import chain

import onnx_ir as ir

from stepwise.export.families.base import Keep

SCOPES = "pkg.torch.onnx.name_scopes"
# The tracer's spelling of a submodule of a module with its own attribute lookup, as diffusers'
# have.
_SPELLED = re.compile(r"\.__dict__\['_modules'\]\['(\w+)'\]")


def drop_other_notes(graph: ir.Graph) -> None:
    """Drop the exporter's metadata except the names of modules.

    The stack trace of each node holds paths of this machine, so that graphs of equal checkpoints
    would differ between folders. These notes are six sevenths of the trace of a UNet.
    """
    graph.metadata_props.clear()
    nodes = list(graph.all_nodes())
    for node in nodes:
        scopes = node.metadata_props.get(SCOPES)
        node.metadata_props.clear()
        if scopes is not None:
            node.metadata_props[SCOPES] = scopes
    outputs = chain.from_iterable(node.outputs for node in nodes)
    for value in chain(graph.inputs, graph.initializers.values(), outputs):
        value.metadata_props.clear()


def module_of(node: ir.Node) -> str:
    """The dotted path of the torch module that a node was traced from; "" is the outermost."""
    scopes = ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))
    return _SPELLED.sub(r".\1", str(scopes[-2])) if len(scopes) > 1 else ""


def stays(node: ir.Node, keep: Keep) -> bool:
    """Whether a node of a component stays in float32."""
    return keep.includes(module_of(node), node.op_type)
