"""A small model repository that responds like exported pipelines, for tests of the client.

``mock`` makes pictures, ``film`` videos. They count steps in one thread per request and accept
``cancel``. A repository built with ``full`` refuses every request. A video shows
``scenes.scene``; input images replace its first and last frame. Some prompts are special:

- ``status`` returns the ids of active requests as notes;
- a prompt that starts with ``[`` fails with itself as the error;
- ``breaks`` fails after two slices;
- ``stalls`` sends eleven slices, then waits until it is cancelled;
- ``slow`` takes ten times as long.
"""

import inspect
import json
from pathlib import Path

from stepwise.description.formats import REPOSITORY
from tests.support import scenes

INPUTS = {
    "prompt": "STRING",
    "steps": "INT32",
    "num_images": "INT32",
    "seed": "INT64",
    "preview_every": "INT32",
    "sampler": "STRING",
    "guidance_scale": "FP32",
    "negative_prompt": "STRING",
    "client": "STRING",
}
ANSWER = {
    "kind": ("STRING", "1"),
    "index": ("INT32", "1"),
    "step": ("INT32", "1"),
    "total_steps": ("INT32", "1"),
    "used_seed": ("INT64", "1"),
    "timings_ms": ("FP32", "2"),
    "mean_batch": ("FP32", "1"),
    "notes": ("STRING", "-1"),
}
OUTPUTS = {"image": ("UINT8", "-1, -1, 3"), **ANSWER}
SHARED = {"steps": 4, "preview_every": 0, "sampler": "euler", "guidance_scale": 6.0}
SHARED_RANGES = {"steps": [1, 100], "guidance_scale": [0.0, 30.0]}
DEFAULTS = {"num_images": 1, **SHARED}
RANGES = {"num_images": [1, 4], **SHARED_RANGES}
FILM_INPUTS = {
    **{name: dtype for name, dtype in INPUTS.items() if name != "num_images"},
    "frames": "INT32",
    "height": "INT32",
    "width": "INT32",
    "guidance_rescale": "FP32",
    "start_image": "UINT8",
    "end_image": "UINT8",
}
FILM_OUTPUTS = {"video": ("UINT8", "-1, -1, -1, 3"), **ANSWER}
FILM_DEFAULTS = {"frames": 49, "guidance_rescale": 0.0, **SHARED}
FILM_RANGES = {"frames": [1, 145], "guidance_rescale": [0.0, 1.0], **SHARED_RANGES}
FILM_SIDES = (48, 64)
STEP_SECONDS = 0.02

_MODEL = """
import random, threading, time
import numpy as np
import triton_python_backend_utils as pb_utils
from stepwise.request.shared_state import OpenRequests, folder

OPEN = OpenRequests(folder(), NAME)

class TritonPythonModel:
    def initialize(self, args):
        self.running, self.cancelled = set(), set()

    def execute(self, requests):
        for request in requests:
            inputs = {t.name(): plain(t.as_numpy()) for t in request.inputs()}
            sender = request.get_response_sender()
            if "cancel" in inputs:
                self.cancelled.add(inputs["cancel"])
                sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            else:
                OPEN.begin()
                settings = {**DEFAULTS, **inputs}
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
            video = settings if "frames" in settings else None
            sender.send(answer("result", 0, 1, 1, 0, sorted(self.running), video))
        else:
            self.running.add(name)
            error = self.count(name, settings, sender)
            self.running.remove(name)
        if error is not None:
            sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(error)))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        OPEN.end()

    def count(self, name, settings, sender):
        steps, every = settings["steps"], settings["preview_every"]
        pause = STEP_SECONDS * (10 if settings["prompt"] == "slow" else 1)
        seed = settings.get("seed", -1)
        seed = random.getrandbits(40) if seed == -1 else seed
        for step in range(1, steps + 1):
            time.sleep(pause)
            if name in self.cancelled:
                return f"[CANCELLED] stopped at step {step} of {steps}"
            preview = every and step % every == 0
            kind = "preview" if preview else "progress"
            if "frames" in settings:
                sender.send(answer(kind, 0, step, steps, seed, [], settings))
                continue
            for index in range(settings["num_images"]):
                told = "result" if step == steps else kind
                sender.send(answer(told, index, step, steps, seed + index))
        for first in starts(settings.get("frames", 0)):
            time.sleep(pause)
            while settings["prompt"] == "stalls" and first > 40 and name not in self.cancelled:
                time.sleep(pause)
            if name in self.cancelled:
                return f"[CANCELLED] stopped at frame {first}"
            if settings["prompt"] == "breaks" and first > 1:
                return "[INTERNAL] the decoder broke"
            sender.send(answer("result", first, steps, steps, seed, [], settings))

def starts(frames):
    return [0, *range(1, frames, 4)] if frames else []

def plain(values):
    if values.ndim == 3:
        return values.copy()
    return values[0].decode() if isinstance(values[0], bytes) else values[0].item()

def answer(kind, index, step, steps, seed, notes=(), settings=None):
    side = {"progress": 0, "preview": 2, "result": 8}[kind]
    outputs = {
        "kind": np.asarray([kind.encode()], np.object_),
        "index": np.asarray([index], np.int32),
        "step": np.asarray([step], np.int32),
        "total_steps": np.asarray([steps], np.int32),
        "used_seed": np.asarray([seed], np.int64),
        "timings_ms": np.zeros(2, np.float32),
        "mean_batch": np.ones(1, np.float32),
        "notes": np.asarray([note.encode() for note in notes], np.object_),
    }
    if settings is None:
        outputs["image"] = np.full((side, side, 3), step, np.uint8)
    else:
        outputs["video"] = video(kind, index, seed, settings)
    return pb_utils.InferenceResponse([pb_utils.Tensor(k, v) for k, v in outputs.items()])

def video(kind, index, seed, settings):
    if kind == "progress":
        return np.zeros((0, 0, 0, 3), np.uint8)
    start, end = settings.get("start_image"), settings.get("end_image")
    sides = FILM_SIDES if start is None else start.shape[:2]
    sides = settings.get("height", sides[0]), settings.get("width", sides[1])
    frames = scene(settings["frames"], *sides, seed % 1000)
    if start is not None:
        frames[0] = start
    if end is not None:
        frames[-1] = end
    if kind == "preview":
        return np.ascontiguousarray(frames[:1, ::4, ::4])
    return frames[index : index + (4 if index else 1)]
"""


def build(folder: Path, full: bool = False) -> Path:
    """Write the repository into an empty folder."""
    _pipeline(folder, "mock", INPUTS, OUTPUTS, DEFAULTS, RANGES, full)
    _pipeline(folder, "film", FILM_INPUTS, FILM_OUTPUTS, FILM_DEFAULTS, FILM_RANGES, full)
    return folder


def _pipeline(folder, name, inputs, outputs, defaults, ranges, full) -> None:
    names = (
        f"NAME, DEFAULTS, STEP_SECONDS, FULL, FILM_SIDES = "
        f"{name!r}, {defaults}, {STEP_SECONDS}, {full}, {FILM_SIDES}\n"
    )
    about = {"defaults": defaults, "ranges": ranges, "samplers": ["euler", "heun"]}
    request = json.dumps(about).replace('"', r"\"")
    source = names + _MODEL + inspect.getsource(scenes.scene)
    (folder / name / "1").mkdir(parents=True)
    (folder / name / "1" / "model.py").write_text(source)
    config = [
        'backend: "python"',
        *_inputs({**inputs, "cancel": "STRING"}),
        *_outputs(outputs),
        f'parameters {{ key: "request" value {{ string_value: "{request}" }} }}',
        "model_transaction_policy { decoupled: true }",
    ]
    (folder / name / "config.pbtxt").write_text("\n".join(config))
    manifest = {"graphs": {}, "tokens": {}, "missing": [], "format": REPOSITORY}
    (folder / name / "manifest.json").write_text(json.dumps(manifest))


def _inputs(tensors):
    for name, dtype in tensors.items():
        dims = "[-1, -1, 3]" if dtype == "UINT8" else "1"
        yield f'input {{ name: "{name}" data_type: TYPE_{dtype} dims: {dims} optional: true }}'


def _outputs(tensors):
    for name, (dtype, dims) in tensors.items():
        yield f'output {{ name: "{name}" data_type: TYPE_{dtype} dims: [{dims}] }}'
