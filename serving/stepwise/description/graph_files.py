"""The files of a graph in a version folder of the model repository."""

import hashlib
from pathlib import Path

GRAPH = "model.onnx"
# The parameter of a graph's config with the number of threads on a CPU; all cores if "0".
THREADS = "intra_op_thread_count"


def graph_digest(folder: Path) -> str:
    """SHA-256 over the hexadecimal SHA-256 of each file of a graph, in name order.

    The files of a graph are ``model.onnx*`` in a version folder.
    """
    total = hashlib.sha256()
    for path in sorted(folder.glob(f"{GRAPH}*")):
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").hexdigest().encode())
    return total.hexdigest()
