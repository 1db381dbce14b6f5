"""What each graph of an exported pipeline is given while it draws a few pictures."""

import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from export.target import GRAPH, Target
from pipelines.conditioning import encode, slots
from pipelines.inflight.batch import advance, guide, stack_conditioning, stack_latents
from pipelines.inflight.request import Picture, Request, table
from pipelines.prepare import Preparer
from pipelines.samplers import X
from pipelines.spec import Component

Array = npt.NDArray[Any]
Feed = Mapping[str, Array]

# Plain, crowded, dark and meaningless. Every one is drawn against an empty negative prompt.
PROMPTS = (
    "a large red star in the top left on a white background",
    "a crowded market at noon, every stall full of fruit, photograph, sharp focus, 35 mm",
    "a small white circle in the center on a black background",
    "?",
)
_STEPS = 4
_GUIDANCE = 3.0


def record(target: Target) -> dict[str, list[Feed]]:
    """The inputs of every call, by component, while each prompt becomes a picture of four steps.

    The export must be finished; pictures have the checkpoint's native side.
    """
    recorder = _Recorder(target)
    for seed, prompt in enumerate(PROMPTS):
        recorder.draw(prompt, seed)
    return dict(recorder.feeds)


class _Recorder:
    def __init__(self, target: Target) -> None:
        self.feeds: defaultdict[str, list[Feed]] = defaultdict(list)
        self._pipeline = target.checkpoint.pipeline
        self._prepare = Preparer(self._pipeline, target.prepare)
        self._sessions = {
            component.name: onnxruntime.InferenceSession(
                target.version(component) / GRAPH, providers=["CPUExecutionProvider"]
            )
            for component in self._pipeline.components
        }

    def draw(self, prompt: str, seed: int) -> None:
        request = self._request(prompt, seed)
        picture = Picture(request, 0)
        picture.start(time.monotonic())
        conditioning = stack_conditioning([picture])
        denoiser, decoder = self._pipeline.denoiser, self._pipeline.decoder
        while not picture.finished:
            inputs = dict(zip(("latents", "timestep"), stack_latents([picture]), strict=True))
            (prediction,) = self._run(denoiser, {**inputs, **conditioning})
            advance([picture], guide([picture], prediction))
        self._run(decoder, {decoder.inputs[0].name: picture.state[X][None]})

    def _request(self, prompt: str, seed: int) -> Request:
        fields: dict[str, Array] = {
            "prompt": np.asarray([prompt.encode()], np.object_),
            "negative_prompt": np.asarray([b""], np.object_),
            "steps": np.asarray([_STEPS], np.int32),
            "guidance_scale": np.asarray([_GUIDANCE], np.float32),
            "seed": np.asarray([seed], np.int64),
        }
        fed, settings = self._prepare(fields, time.monotonic())
        embeddings = encode(self._pipeline, fed, self._run)
        rows = slots(self._pipeline, embeddings, settings)
        return Request("", settings, rows, table(settings), send=_nobody, fail=_nobody)

    def _run(self, component: Component, feed: Feed) -> list[Array]:
        self.feeds[component.name].append(feed)
        outputs: list[Array] = self._sessions[component.name].run(
            [tensor.name for tensor in component.outputs], feed
        )
        return outputs


def _nobody(*_answer: object) -> None:
    """Takes answers that nobody waits for."""
