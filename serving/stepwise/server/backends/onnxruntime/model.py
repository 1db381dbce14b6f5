"""Replaces Triton's C++ ``onnxruntime`` backend with the ``onnxruntime`` wheel.

If that backend is not installed, this file serves each model with ``backend: "onnxruntime"`` in its
config and ``1/model.onnx`` in its folder. It supports the config's batching, its instance groups,
and these parameters (all strings):

``intra_op_thread_count``, ``inter_op_thread_count``, ``execution_mode`` (0 sequential, 1 parallel)
    as in https://github.com/triton-inference-server/onnxruntime_backend#model-config-options
``session.*``
    any session option of ONNX Runtime, e.g. ``session.intra_op.allow_spinning``
``largest_sizes``
    the largest sizes of the inputs' dynamic axes, as in ``stepwise.description.axis_limits``; a
    larger or an empty tensor is refused before anything runs
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from stepwise.description.axis_limits import PARAMETER, Sizes, axes, problem

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
        parameters = {k: value["string_value"] for k, value in config["parameters"].items()}
        self.name = args["model_name"]
        self.batches = config["max_batch_size"] > 0
        file = config["default_model_filename"] or "model.onnx"
        path = Path(args["model_repository"], args["model_version"], file)
        try:
            self.session = ort.InferenceSession(
                path, _options(parameters), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime has no common base class for its errors
            raise pb_utils.TritonModelException(f"Cannot load {path}: {error}") from error
        _check("input", config["input"], self.session.get_inputs(), path)
        _check("output", config["output"], self.session.get_outputs(), path)
        self.inputs = {tensor.name: tensor.shape for tensor in self.session.get_inputs()}
        self.largest = _largest(parameters, self.inputs, path)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Refuse requests that are too large, and run the others; each gets one response."""
        feeds = [self._feed(request) for request in requests]
        answers = [self._refusal(feed) for feed in feeds]
        due = [place for place, refusal in enumerate(answers) if refusal is None]
        wanted = [list(requests[place].requested_output_names()) for place in due]
        for place, answer in zip(due, self._run_all([feeds[i] for i in due], wanted), strict=True):
            answers[place] = answer
        return answers

    def _feed(self, request: Any) -> Arrays:
        tensors = {tensor.name(): tensor for tensor in request.inputs()}
        return {name: tensors[name].as_numpy() for name in self.inputs}

    def _refusal(self, feed: Arrays) -> Any | None:
        if self.largest is None:
            return None
        shapes = {name: array.shape for name, array in feed.items()}
        found = problem(self.inputs, shapes, self.largest)
        return None if found is None else _error(f"{self.name}: {found}")

    def _run_all(self, feeds: list[Arrays], wanted: list[list[str]]) -> list[Any]:
        """Run requests as one batch; if the batch fails, run each alone to isolate the error."""
        if len(feeds) > 1 and self.batches:
            try:
                return self._run_batch(feeds, wanted)
            except Exception:
                # One request's values may be the cause; run alone, only that request fails.
                pass
        return [self._run(feed, names) for feed, names in zip(feeds, wanted, strict=True)]

    def _run(self, feed: Arrays, names: list[str]) -> Any:
        try:
            return _response(names, self.session.run(names, feed))
        except Exception as error:
            return _error(_sentence(self.name, feed, error))

    def _run_batch(self, feeds: list[Arrays], wanted: list[list[str]]) -> list[Any]:
        names = sorted(set().union(*wanted))
        merged = {name: np.concatenate([feed[name] for feed in feeds]) for name in self.inputs}
        sizes = [len(next(iter(feed.values()))) for feed in feeds]
        outputs = dict(zip(names, self.session.run(names, merged), strict=True))
        ends = np.cumsum(sizes)
        return [
            _response(own, [outputs[name][end - size : end] for name in own])
            for own, size, end in zip(wanted, sizes, ends, strict=True)
        ]


def _options(parameters: Mapping[str, str]) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(parameters.get("intra_op_thread_count", 0))
    options.inter_op_num_threads = int(parameters.get("inter_op_thread_count", 0))
    options.execution_mode = _EXECUTION_MODES[parameters.get("execution_mode", "0")]
    for key, value in parameters.items():
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


def _largest(
    parameters: Mapping[str, str], inputs: Mapping[str, list[Any]], path: Path
) -> list[Sizes] | None:
    """The largest sizes of the axes; None if the config does not limit them."""
    if PARAMETER not in parameters:
        return None
    largest: list[Sizes] = json.loads(parameters[PARAMETER])
    if not largest or any(sizes.keys() != axes(inputs) for sizes in largest):
        raise pb_utils.TritonModelException(
            f"The axes of {path} are {sorted(axes(inputs))} but {PARAMETER} in its config.pbtxt "
            f"is {largest}: export the pipeline again."
        )
    return largest


def _ort_type(data_type: str) -> str:
    name = np.dtype(pb_utils.triton_string_to_numpy(data_type)).name
    return f"tensor({_ORT_NAMES.get(name, name)})"


def _response(names: list[str], arrays: list[NDArray[Any]]) -> Any:
    tensors = [pb_utils.Tensor(name, array) for name, array in zip(names, arrays, strict=True)]
    return pb_utils.InferenceResponse(tensors)


def _sentence(model: str, feed: Arrays, error: Exception) -> str:
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
    return f"{model} cannot run on {shapes}: {error}"


def _error(sentence: str) -> Any:
    return pb_utils.InferenceResponse(
        error=pb_utils.TritonError(sentence, pb_utils.TritonError.INVALID_ARG)
    )
