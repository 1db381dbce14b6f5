"""The Triton config of a graph or an engine, with its exact dims."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from tritonclient.grpc import model_config_pb2 as pb

from stepwise.description.axis_limits import PARAMETER, Sizes
from stepwise.description.graph_files import THREADS
from stepwise.description.spec import Component, Tensor
from stepwise.export.repository.triton_configs import data_type, strings

# Every model has its own thread pool. Threads spin between the nodes of a run, which makes a small
# graph a third faster, and stop when it ends, because spinning takes cores from other pools.
_PARAMETERS = {"session.force_spinning_stop": "1"}

# Tensor names to dims with the batch dim, -1 where they are dynamic.
Shapes = Mapping[str, Sequence[int]]


def graph_config(
    component: Component, name: str, path: Path, largest: Sequence[Sizes], threads: int
) -> pb.ModelConfig:
    """The config of ``<name>_<component>``, served from the graph at ``path``.

    ``largest`` lists the largest sizes of the dynamic axes of the graph's inputs. On a CPU,
    ``threads`` run the graph, all cores if 0.
    """
    graph = onnx.load(str(path), load_external_data=False).graph
    shapes = {
        value.name: [-1 if d.dim_param else d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    config = _config(component, name, "onnxruntime", shapes)
    parameters = {**_PARAMETERS, THREADS: str(threads), PARAMETER: json.dumps(largest)}
    config.MergeFrom(pb.ModelConfig(parameters=strings(parameters)))
    return config


def engine_config(component: Component, name: str, shapes: Shapes, profiles: int) -> pb.ModelConfig:
    """The config of ``<name>_<component>``, served from an engine with tensors of ``shapes``.

    Triton uses only the first of an engine's ``profiles`` unless the config lists all.
    """
    config = _config(component, name, "tensorrt", shapes)
    if profiles > 1:
        config.instance_group[0].profile.extend(map(str, range(profiles)))
    return config


def _config(component: Component, name: str, backend: str, shapes: Shapes) -> pb.ModelConfig:
    config = pb.ModelConfig(
        name=f"{name}_{component.name}", backend=backend, max_batch_size=component.max_batch
    )
    # By default Triton makes two instances on a CPU: twice the weights for no gain.
    config.instance_group.add(count=1)
    if component.max_batch:
        config.dynamic_batching.SetInParent()
    for tensor in component.inputs:
        _fill(config.input.add(), component, tensor, shapes)
    for tensor in component.outputs:
        _fill(config.output.add(), component, tensor, shapes)
    return config


def _fill(
    described: pb.ModelInput | pb.ModelOutput, component: Component, tensor: Tensor, shapes: Shapes
) -> None:
    """Describe a tensor. ``max_batch_size`` replaces the leading dim where Triton batches."""
    dims = shapes[tensor.name]
    described.name = tensor.name
    described.data_type = pb.DataType.Value(data_type(tensor))
    described.dims.extend(dims[1:] if component.max_batch else dims)
