#!/usr/bin/env bash
# onnxscript's optimizer takes time quadratic in the number of a graph's nodes.
#
# Seen with onnxscript 0.7.2 and onnx-ir 1.1.0. One of optimize_ir's default rules matches two
# slices that form one split. Expected: rules are tried at each node, so twice the nodes are twice
# the work. Seen: for each node of any type, all nodes of the graph are listed by operator, so twice
# the nodes are four times the work, even without any slice.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnxscript==0.7.2 onnx-ir==1.1.0 onnx==1.23.2
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import onnx_ir as ir
from onnxscript import optimizer

asked = 0
identify = ir.Node.op_identifier


def counted(node):
    global asked
    asked += 1
    return identify(node)


ir.Node.op_identifier = counted


def work(nodes):
    """The number of operator lookups while a chain of sines is optimized."""
    global asked
    kind, shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([1])
    value = start = ir.Value(name="x", type=kind, shape=shape)
    chain = []
    for _ in range(nodes):
        chain.append(ir.node("Sin", [value]))
        value = chain[-1].outputs[0]
    value.type, value.shape = kind, shape
    graph = ir.Graph([start], [value], nodes=chain, opset_imports={"": 18}, name="chain")
    asked = 0
    optimizer.optimize_ir(ir.Model(graph, ir_version=10))
    return asked


small, large = work(200), work(400)
print(f"onnxscript {version('onnxscript')}: 200 nodes {small}, 400 nodes {large}")
print(f"times as much work for twice the nodes: {large / small:.2f}, expected 2")
sys.exit(large / small < 3.5)
PYTHON
