"""Files that an export writes beside a graph, and when weights go to one of their own."""

from stepwise.description.graph_files import GRAPH

# What a graph is made from, without weights, beside it.
TRACE = "trace.onnx"
# Of a quantized component: TensorRT and ONNX Runtime want other graphs of one plan.
ENGINE_GRAPH = f"tensorrt/{GRAPH}"
# A graph with its weights inside is in memory several times while it is read or written, so weights
# of more than this go to a file beside it.
LARGEST_INLINE_BYTES = 200_000_000
