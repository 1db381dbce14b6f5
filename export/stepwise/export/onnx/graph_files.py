"""Files that an export writes next to a graph, and the limit for weights inside the graph."""

from stepwise.description.graph_files import GRAPH

# The trace that a graph is made from, without weights.
TRACE = "trace.onnx"
# The graph of a quantized component for TensorRT, which needs another one than ONNX Runtime.
ENGINE_GRAPH = f"tensorrt/{GRAPH}"
# A graph with its weights inside is in memory several times while it is read or written, so larger
# weights go to a file next to it.
LARGEST_INLINE_BYTES = 200_000_000
