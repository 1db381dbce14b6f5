"""Finds the torch module that a node of a graph was traced from."""

import ast
import re

import onnx_ir as ir

from stepwise.export.families.base import Keep

_SCOPES = "pkg.torch.onnx.name_scopes"
# The tracer's spelling of a submodule of a module with its own attribute lookup, as diffusers'
# have.
_SPELLED = re.compile(r"\.__dict__\['_modules'\]\['(\w+)'\]")


def module_of(node: ir.Node) -> str:
    """The dotted path of the torch module that a node was traced from; "" is the outermost."""
    scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    return _SPELLED.sub(r".\1", str(scopes[-2])) if len(scopes) > 1 else ""


def stays(node: ir.Node, keep: Keep) -> bool:
    """Whether a node of a component stays in float32."""
    return keep.includes(module_of(node), node.op_type)
