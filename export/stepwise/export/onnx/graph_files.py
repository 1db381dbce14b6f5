"""The files of a graph in a version folder of the model repository."""

import hashlib
from pathlib import Path

GRAPH = "model.onnx"
# What a graph is made from, without weights, beside it.
TRACE = "trace.onnx"
# Of a quantized component: TensorRT and ONNX Runtime want other graphs of one plan.
ENGINE_GRAPH = f"tensorrt/{GRAPH}"
# A graph with its weights inside is in memory several times while it is read or written, so weights
# of more than this go to a file beside it.
LARGEST_INLINE_BYTES = 200_000_000


def graph_digest(folder: Path) -> str:
    """SHA-256 over the hexadecimal SHA-256 of each file of a graph, in name order.

    They are ``model.onnx`` in a version folder and what begins with its name.
    """
    total = hashlib.sha256()
    for path in sorted(folder.glob(f"{GRAPH}*")):
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").hexdigest().encode())
    return total.hexdigest()
