"""A small model repository in the layout of an exported pipeline, for tests of the server itself.

``mock`` counts steps: it squares a number over BLS once per step, responds and pauses.
Graphs: ``square`` (batched), ``lookup`` (fails for ids above 3), ``types`` (copies each dtype).
"""

import json
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from stepwise.description.formats import REPOSITORY

TYPES = {
    "FP32": TensorProto.FLOAT,
    "FP16": TensorProto.FLOAT16,
    "FP64": TensorProto.DOUBLE,
    "INT8": TensorProto.INT8,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "UINT8": TensorProto.UINT8,
    "BOOL": TensorProto.BOOL,
}
PIPELINE = "mock"

_MODEL = """
import threading, time
import numpy as np
import triton_python_backend_utils as pb_utils
from stepwise.request.shared_state import OpenRequests, folder

OPEN = OpenRequests(folder(), "mock")

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            OPEN.begin()
            steps = int(pb_utils.get_input_tensor_by_name(request, "steps").as_numpy()[0])
            threading.Thread(target=run, args=(steps, request.get_response_sender())).start()

def run(steps, sender):
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    for step in range(1, steps + 1):
        x = pb_utils.Tensor("x", np.full((1, 2), step, np.float32))
        answer = pb_utils.InferenceRequest(
            model_name="mock_square", requested_output_names=["y"], inputs=[x]
        ).exec()
        if answer.has_error():
            sender.send(pb_utils.InferenceResponse(error=answer.error()))
            break
        y = pb_utils.get_output_tensor_by_name(answer, "y").as_numpy()[0].astype(np.int32)
        sender.send(pb_utils.InferenceResponse([
            pb_utils.Tensor("image", image), pb_utils.Tensor("last", y)
        ]))
        time.sleep(0.02)
    sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
    OPEN.end()
"""


def build(folder: Path) -> Path:
    """Write the repository into an empty folder."""
    _python(folder)
    square = helper.make_node("Mul", ["x", "x"], ["y"])
    graph(folder, "square", [square], {"x": ("FP32", ["b", 2])}, {"y": ("FP32", ["b", 2])})
    table = helper.make_tensor("table", TensorProto.FLOAT, [4], [0.0, 10.0, 20.0, 30.0])
    lookup = helper.make_node("Gather", ["table", "ids"], ["values"])
    ids, values = {"ids": ("INT64", ["b", 1])}, {"values": ("FP32", ["b", 1])}
    graph(folder, "lookup", [lookup], ids, values, [table])
    copies = [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in TYPES]
    graph(
        folder,
        "types",
        copies,
        {f"in_{name}": (name, ["b", 3]) for name in TYPES},
        {f"out_{name}": (name, ["b", 3]) for name in TYPES},
    )
    write_manifest(folder, ["square", "lookup", "types"])
    return folder


def write_manifest(folder: Path, graphs: list[str]) -> None:
    """Write a manifest that lists the pipeline's graphs."""
    manifest = {"graphs": dict.fromkeys(graphs, ""), "tokens": {}, "missing": []}
    manifest["format"] = REPOSITORY
    (folder / PIPELINE / "manifest.json").write_text(json.dumps(manifest))


def graph(folder, name, nodes, inputs, outputs, constants=()) -> None:
    """Write a batched ONNX model; ``inputs`` and ``outputs`` are {name: (dtype, dims)}."""
    infos = [
        [helper.make_tensor_value_info(n, TYPES[dtype], dims) for n, (dtype, dims) in side.items()]
        for side in (inputs, outputs)
    ]
    made = helper.make_graph(nodes, name, *infos, constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    version = folder / f"{PIPELINE}_{name}" / "1"
    version.mkdir(parents=True)
    onnx.save(model, version / "model.onnx")
    sides = (("input", inputs), ("output", outputs))
    tensors = (
        f'{side} {{ name: "{n}" data_type: TYPE_{dtype} dims: {dims[1]} }}'
        for side, given in sides
        for n, (dtype, dims) in given.items()
    )
    lines = [
        'backend: "onnxruntime"',
        "max_batch_size: 8",
        *tensors,
        "dynamic_batching { max_queue_delay_microseconds: 100000 }",
        "instance_group { count: 1 }",
        'parameters { key: "intra_op_thread_count" value { string_value: "1" } }',
        'parameters { key: "session.intra_op.allow_spinning" value { string_value: "0" } }',
    ]
    (version.parent / "config.pbtxt").write_text("\n".join(lines))


def _python(folder) -> None:
    version = folder / PIPELINE / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(_MODEL)
    lines = [
        'backend: "python"',
        *_tensors("input", {"prompt": "STRING", "steps": "INT32"}),
        *_tensors("output", {"image": "UINT8", "last": "INT32"}),
        "model_transaction_policy { decoupled: true }",
    ]
    (version.parent / "config.pbtxt").write_text("\n".join(lines))


def _tensors(side, tensors):
    for name, dtype in tensors.items():
        dims = "[-1, -1, 3]" if name == "image" else "[-1]"
        yield f'{side} {{ name: "{name}" data_type: TYPE_{dtype} dims: {dims} }}'
