"""A small model repository that answers as an exported pipeline does, for tests of the client.

The pipeline ``mock``: ``mock_prepare`` holds the defaults and passes settings on, ``mock_denoise``
counts steps in a thread per request, tells events, and takes ``cancel``, ``mock_decode`` makes
response tensors of the events. A repository built with ``full`` refuses every request. The prompt
``status`` is answered with the ids of the requests under way as notes, one that begins with ``[``
with that error.
"""

import json
from pathlib import Path

INPUTS = {
    "prompt": "STRING",
    "steps": "INT32",
    "num_images": "INT32",
    "seed": "INT64",
    "preview_every": "INT32",
}
OUTPUTS = {
    "image": ("UINT8", "-1, -1, 3"),
    "kind": ("STRING", "1"),
    "index": ("INT32", "1"),
    "step": ("INT32", "1"),
    "total_steps": ("INT32", "1"),
    "used_seed": ("INT64", "1"),
    "timings_ms": ("FP32", "2"),
    "mean_batch": ("FP32", "1"),
    "notes": ("STRING", "-1"),
}
DEFAULTS = {"steps": 4, "num_images": 1, "preview_every": 0}
STEP_SECONDS = 0.02

_PREPARE = """
import json
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        values = {t.name(): t.as_numpy()[0] for t in request.inputs()}
        values = {k: v.decode() if isinstance(v, bytes) else int(v) for k, v in values.items()}
        line = json.dumps({**DEFAULTS, **values}).encode()
        return pb_utils.InferenceResponse([
            pb_utils.Tensor("settings", np.asarray([line], np.object_))
        ])
"""

_DENOISE = """
import json, random, threading, time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.running, self.cancelled = set(), set()

    def execute(self, requests):
        for request in requests:
            inputs = {t.name(): t.as_numpy()[0].decode() for t in request.inputs()}
            sender = request.get_response_sender()
            if "cancel" in inputs:
                self.cancelled.add(inputs["cancel"])
                sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            else:
                settings = json.loads(inputs["settings"])
                threading.Thread(
                    target=self.run, args=(request.request_id(), settings, sender)
                ).start()

    def run(self, name, settings, sender):
        prompt = settings["prompt"]
        if FULL:
            error = "[UNAVAILABLE] the queue is full: 256 requests wait; try again later"
        elif prompt.startswith("["):
            error = prompt
        elif prompt == "status":
            error = None
            sender.send(answer("result", 0, 1, 1, 0, sorted(self.running)))
        else:
            self.running.add(name)
            error = self.count(name, settings, sender)
            self.running.remove(name)
        if error is not None:
            sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(error)))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def count(self, name, settings, sender):
        steps, every = settings["steps"], settings["preview_every"]
        seed = settings.get("seed", random.getrandbits(40))
        for step in range(1, steps + 1):
            time.sleep(STEP_SECONDS)
            if name in self.cancelled:
                return f"[CANCELLED] stopped at step {step} of {steps}"
            preview = every and step % every == 0
            kind = "result" if step == steps else "preview" if preview else "progress"
            for index in range(settings["num_images"]):
                sender.send(answer(kind, index, step, steps, seed + index))

def answer(*event):
    line = np.asarray([json.dumps(event).encode()], np.object_)
    return pb_utils.InferenceResponse([pb_utils.Tensor("event", line)])
"""

_DECODE = """
import json
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [
            answer(*json.loads(pb_utils.get_input_tensor_by_name(request, "event").as_numpy()[0]))
            for request in requests
        ]

def answer(kind, index, step, steps, seed, notes=()):
    side = {"progress": 0, "preview": 2, "result": 8}[kind]
    outputs = {
        "image": np.full((side, side, 3), step, np.uint8),
        "kind": np.asarray([kind.encode()], np.object_),
        "index": np.asarray([index], np.int32),
        "step": np.asarray([step], np.int32),
        "total_steps": np.asarray([steps], np.int32),
        "used_seed": np.asarray([seed], np.int64),
        "timings_ms": np.zeros(2, np.float32),
        "mean_batch": np.ones(1, np.float32),
        "notes": np.asarray([note.encode() for note in notes], np.object_),
    }
    return pb_utils.InferenceResponse([pb_utils.Tensor(k, v) for k, v in outputs.items()])
"""


def build(folder: Path, full: bool = False) -> Path:
    """Write the repository into an empty folder."""
    names = f"DEFAULTS, STEP_SECONDS, FULL = {DEFAULTS}, {STEP_SECONDS}, {full}\n"
    request = json.dumps({"defaults": DEFAULTS, "ranges": {}, "samplers": []}).replace('"', r"\"")
    _model(
        folder / "mock_prepare",
        names + _PREPARE,
        *_inputs(INPUTS),
        'output { name: "settings" data_type: TYPE_STRING dims: 1 }',
        f'parameters {{ key: "request" value {{ string_value: "{request}" }} }}',
    )
    _model(
        folder / "mock_denoise",
        names + _DENOISE,
        *_inputs({"settings": "STRING", "cancel": "STRING"}),
        'output { name: "event" data_type: TYPE_STRING dims: 1 }',
        "model_transaction_policy { decoupled: true }",
    )
    _model(folder / "mock_decode", _DECODE, *_inputs({"event": "STRING"}), *_outputs())
    _ensemble(folder / "mock")
    manifest = {"graphs": {}, "tokens": {}, "missing": []}
    (folder / "mock_prepare" / "manifest.json").write_text(json.dumps(manifest))
    return folder


def _model(folder: Path, source: str, *config: str) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(source)
    (folder / "config.pbtxt").write_text("\n".join(['backend: "python"', *config]))


def _ensemble(folder: Path) -> None:
    (folder / "1").mkdir(parents=True)
    steps = (
        _step("prepare", INPUTS, ["settings"]),
        _step("denoise", ["settings"], ["event"]),
        _step("decode", ["event"], OUTPUTS),
    )
    config = [
        'platform: "ensemble"',
        *_inputs(INPUTS),
        *_outputs(),
        f"ensemble_scheduling {{ {' '.join(steps)} }}",
    ]
    (folder / "config.pbtxt").write_text("\n".join(config))


def _step(stage, inputs, outputs) -> str:
    maps = [("input_map", name) for name in inputs] + [("output_map", name) for name in outputs]
    wiring = " ".join(f'{side} {{ key: "{name}" value: "{name}" }}' for side, name in maps)
    return f'step {{ model_name: "mock_{stage}" model_version: -1 {wiring} }}'


def _inputs(tensors):
    for name, dtype in tensors.items():
        yield f'input {{ name: "{name}" data_type: TYPE_{dtype} dims: 1 optional: true }}'


def _outputs():
    for name, (dtype, dims) in OUTPUTS.items():
        yield f'output {{ name: "{name}" data_type: TYPE_{dtype} dims: [{dims}] }}'
