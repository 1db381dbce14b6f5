"""The models of a repository's graphs, as a client that bypasses the pipeline sees them."""

import json
from collections import defaultdict
from functools import partial
from queue import Queue

import numpy as np
import onnx
from google.protobuf import text_format
from tritonclient.grpc import InferenceServerClient
from tritonclient.grpc.model_config_pb2 import ModelConfig

from stepwise.description.axis_limits import PARAMETER, problem
from stepwise.description.graph_files import GRAPH
from stepwise.description.spec import axis
from stepwise.local import LocalPipeline
from tests.support import raw

DTYPES = {1: np.float32, 6: np.int32, 7: np.int64}


class Model:
    """A component in a repository: its config and its graph's inputs."""

    def __init__(self, families, pipeline, component):
        folder = families / f"{pipeline}_{component}"
        self.name = folder.name
        self.config = text_format.Parse((folder / "config.pbtxt").read_text(), ModelConfig())
        graph = onnx.load(str(folder / "1" / GRAPH), load_external_data=False).graph
        types = {value.name: value.type.tensor_type for value in graph.input}
        self.dims = {
            name: [dim.dim_param or dim.dim_value for dim in kind.shape.dim]
            for name, kind in types.items()
        }
        self.dtypes = {name: DTYPES[kind.elem_type] for name, kind in types.items()}
        self.largest = json.loads(self.config.parameters[PARAMETER].string_value)

    def most(self, name):
        return max(sizes[name] for sizes in self.largest)

    def feed(self, **sizes):
        """Zeros for every input; axes that ``sizes`` leaves out have the size 1."""
        shapes = {
            name: [_size(dim, sizes) if isinstance(dim, str) else dim for dim in dims]
            for name, dims in self.dims.items()
        }
        return {name: np.zeros(shape, self.dtypes[name]) for name, shape in shapes.items()}


def _size(dim, sizes):
    times, name = axis(dim)
    return times * sizes.get(name, 1)


def ask(server, model, feed):
    """The outputs of a graph's model by name, or the error's message."""
    return ask_together(server, model, [feed])[0]


def ask_together(server, model, feeds):
    """The answers to messages that are sent at once."""
    answers = [Queue() for _ in feeds]
    with InferenceServerClient(server.grpc_url) as triton:
        for feed, answer in zip(feeds, answers, strict=True):
            triton.async_infer(model, raw.tensors(**feed), partial(_put, answer))
        return [answer.get(timeout=raw.SECONDS) for answer in answers]


def _put(answer, result, error):
    if error is not None:
        answer.put(error.message())
        return
    names = [output.name for output in result.get_response().outputs]
    answer.put({name: result.as_numpy(name) for name in names})


class Recorder(LocalPipeline):
    """Records the sizes of all axes in each call of a component."""

    def __init__(self, families, name):
        super().__init__(families, name)
        self.models = {c.name: Model(families, name, c.name) for c in self.family.components}
        self.sizes = defaultdict(list)

    def run(self, component, feed):
        model = self.models[component.name]
        shapes = {name: np.shape(value) for name, value in feed.items()}
        assert problem(model.dims, shapes, model.largest) is None
        found = {}
        for name, dims in model.dims.items():
            for dim, size in zip(dims, shapes[name], strict=True):
                if isinstance(dim, str):
                    times, own = axis(dim)
                    found[own] = size // times
        self.sizes[component.name].append(found)
        return super().run(component, feed)
