"""The Triton config of a graph, with the exact dims that the graph has."""

from pathlib import Path

import onnx
from tritonclient.grpc import model_config_pb2 as pb

from export.configs import data_type, strings
from pipelines.spec import Component, Tensor

# Every model has a thread pool of its own. Threads that spin while they wait for work take the
# cores from the pools that have some.
_PARAMETERS = {"intra_op_thread_count": "0", "session.intra_op.allow_spinning": "0"}


def graph_config(component: Component, name: str, path: Path) -> pb.ModelConfig:
    """The config of ``<name>_<component>``, served from the graph at ``path``.

    Dims are the graph's own, -1 where they are symbolic. A component that Triton batches has its
    leading axis left out, as ``max_batch_size`` stands for it.
    """
    graph = onnx.load(str(path), load_external_data=False).graph
    config = pb.ModelConfig(
        name=f"{name}_{component.name}",
        backend="onnxruntime",
        max_batch_size=component.max_batch,
        parameters=strings(_PARAMETERS),
    )
    # Left to itself Triton makes two instances on a CPU: twice the weights for no gain.
    config.instance_group.add(count=1)
    if component.max_batch:
        config.dynamic_batching.SetInParent()
    for tensor, value in zip(component.inputs, graph.input, strict=True):
        _fill(config.input.add(), component, tensor, value)
    for tensor, value in zip(component.outputs, graph.output, strict=True):
        _fill(config.output.add(), component, tensor, value)
    return config


def _fill(
    slot: pb.ModelInput | pb.ModelOutput,
    component: Component,
    tensor: Tensor,
    value: onnx.ValueInfoProto,
) -> None:
    dims = [-1 if dim.dim_param else dim.dim_value for dim in value.type.tensor_type.shape.dim]
    slot.name = tensor.name
    slot.data_type = pb.DataType.Value(data_type(tensor))
    slot.dims.extend(dims[1:] if component.max_batch else dims)
