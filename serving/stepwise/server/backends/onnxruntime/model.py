"""Replaces Triton's C++ ``onnxruntime`` backend with the ``onnxruntime`` wheel.

If that backend is not installed, this file serves each model with ``backend: "onnxruntime"`` in its
config and ``1/model.onnx`` in its folder. It supports the config's batching, its instance groups,
and these parameters (all strings):

``intra_op_thread_count``, ``inter_op_thread_count``, ``execution_mode`` (0 sequential, 1 parallel)
    as in https://github.com/triton-inference-server/onnxruntime_backend#model-config-options
``session.*``
    any session option of ONNX Runtime, e.g. ``session.intra_op.allow_spinning``
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
_ORT_NAMES = {"float32": "float", "float64": "double"}
_EXECUTION_MODES = {
    "0": ort.ExecutionMode.ORT_SEQUENTIAL,
    "1": ort.ExecutionMode.ORT_PARALLEL,
}


class TritonPythonModel:
    """One instance of a model: an ONNX Runtime session."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Return the config unchanged: configs are already complete."""
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph. Raises ``TritonModelException`` if it is broken or the config differs."""
        config = json.loads(args["model_config"])
        self.name = args["model_name"]
        self.batches = config["max_batch_size"] > 0
        file = config["default_model_filename"] or "model.onnx"
        path = Path(args["model_repository"], args["model_version"], file)
        try:
            self.session = ort.InferenceSession(
                path, _options(config["parameters"]), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime has no common base class for its errors
            raise pb_utils.TritonModelException(f"Cannot load {path}: {error}") from error
        _check("input", config["input"], self.session.get_inputs(), path)
        _check("output", config["output"], self.session.get_outputs(), path)
        self.inputs = [tensor.name for tensor in self.session.get_inputs()]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run requests as one batch; if the batch fails, run each alone to isolate the error."""
        feeds = [self._feed(request) for request in requests]
        wanted = [list(request.requested_output_names()) for request in requests]
        if len(requests) > 1 and self.batches:
            try:
                return self._run_batch(feeds, wanted)
            except Exception:
                # One request's values may be the cause; run alone, only that request fails.
                pass
        return [self._run(feed, names) for feed, names in zip(feeds, wanted, strict=True)]

    def _feed(self, request: Any) -> Arrays:
        tensors = {tensor.name(): tensor for tensor in request.inputs()}
        return {name: tensors[name].as_numpy() for name in self.inputs}

    def _run(self, feed: Arrays, names: list[str]) -> Any:
        try:
            return _response(names, self.session.run(names, feed))
        except Exception as error:
            return pb_utils.InferenceResponse(error=_sentence(self.name, feed, error))

    def _run_batch(self, feeds: list[Arrays], wanted: list[list[str]]) -> list[Any]:
        names = sorted(set().union(*wanted))
        merged = {name: np.concatenate([feed[name] for feed in feeds]) for name in self.inputs}
        sizes = [len(feed[self.inputs[0]]) for feed in feeds]
        outputs = dict(zip(names, self.session.run(names, merged), strict=True))
        ends = np.cumsum(sizes)
        return [
            _response(own, [outputs[name][end - size : end] for name in own])
            for own, size, end in zip(wanted, sizes, ends, strict=True)
        ]


def _options(parameters: Mapping[str, Mapping[str, str]]) -> ort.SessionOptions:
    given = {key: value["string_value"] for key, value in parameters.items()}
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(given.get("intra_op_thread_count", 0))
    options.inter_op_num_threads = int(given.get("inter_op_thread_count", 0))
    options.execution_mode = _EXECUTION_MODES[given.get("execution_mode", "0")]
    for key, value in given.items():
        if key.startswith("session."):
            options.add_session_config_entry(key, value)
    return options


def _check(kind: str, config: list[dict[str, Any]], graph: list[ort.NodeArg], path: Path) -> None:
    configured = {tensor["name"]: _ort_type(tensor["data_type"]) for tensor in config}
    actual = {node.name: node.type for node in graph}
    if configured != actual:
        raise pb_utils.TritonModelException(
            f"The {kind}s of {path} are {actual} but its config.pbtxt says {configured}: "
            "export the pipeline again."
        )


def _ort_type(data_type: str) -> str:
    name = np.dtype(pb_utils.triton_string_to_numpy(data_type)).name
    return f"tensor({_ORT_NAMES.get(name, name)})"


def _response(names: list[str], arrays: list[NDArray[Any]]) -> Any:
    tensors = [pb_utils.Tensor(name, array) for name, array in zip(names, arrays, strict=True)]
    return pb_utils.InferenceResponse(tensors)


def _sentence(model: str, feed: Arrays, error: Exception) -> Any:
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
    return pb_utils.TritonError(
        f"{model} cannot run on {shapes}: {error}", pb_utils.TritonError.INVALID_ARG
    )
