"""The served graphs and loop in one process, without Triton: what overhead is held to."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from pipelines import PIPELINES
from pipelines.conditioning import Conditioning, encode, slots
from pipelines.errors import RequestError
from pipelines.events import Event
from pipelines.inflight.batcher import Batcher
from pipelines.inflight.loop import Loop
from pipelines.inflight.request import Request, Summary, table
from pipelines.manifest import Manifest
from pipelines.prepare import Preparer
from pipelines.spec import Component

Array = npt.NDArray[Any]


def session(repository: Path, model: str) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session with the thread settings that the served graphs have."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.force_spinning_stop", "1")
    path = repository / model / "1" / "model.onnx"
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class InProcess:
    """One exported pipeline, run in this process."""

    def __init__(self, repository: Path, name: str) -> None:
        folder = repository / f"{name}_prepare"
        self._prepare = Preparer(PIPELINES[Manifest.read(folder).family], folder)
        self._pipeline = self._prepare.pipeline
        self._sessions = {
            component.name: session(repository, f"{name}_{component.name}")
            for component in self._pipeline.components
        }

    def denoise(self, latents: Array, timesteps: Array, conditioning: Conditioning) -> Array:
        """One call of the denoiser graph, as the loop makes it."""
        denoiser = self._pipeline.denoiser
        names = [tensor.name for tensor in denoiser.inputs]
        return self._run(denoiser, {**conditioning, names[0]: latents, names[1]: timesteps})[0]

    def blank_conditioning(self, slots: int) -> Conditioning:
        """Conditioning of zeros for ``slots`` rows, in the shapes that this checkpoint has."""
        shapes = {
            tensor.name: tensor.shape
            for tensor in self._sessions[self._pipeline.denoiser.name].get_inputs()
        }
        # The encoders' tokens that stand one after the other.
        text = sum(self._prepare.manifest.tokens.get(name, 0) for name in ("clip_l", "t5"))
        names = [tensor.name for tensor in self._pipeline.denoiser.inputs[2:]]
        return {
            name: np.zeros(
                [{"batch": slots, "text": text}.get(dim, dim) for dim in shapes[name]], np.float32
            )
            for name in names
        }

    def picture(self, prompt: str, **settings: float) -> Array:
        """One picture, uint8 (height, width, 3); ``settings`` as in a request."""
        types: dict[str, Any] = {"guidance_scale": np.float32, "seed": np.int64}
        inputs: dict[str, Array] = {
            name: np.asarray([value], types.get(name, np.int32)) for name, value in settings.items()
        }
        inputs["prompt"] = np.asarray([prompt.encode()], np.object_)
        ids, resolved = self._prepare(inputs, time.monotonic())
        embeddings = encode(self._pipeline, ids, self._run)
        rows = slots(self._pipeline, embeddings, resolved)
        latents = self._loop(lambda **sinks: Request("", resolved, rows, table(resolved), **sinks))
        decoder = self._pipeline.decoder
        picture: Array = self._run(decoder, {decoder.inputs[0].name: latents[None]})[0][0]
        return picture

    def _loop(self, build: Any) -> Array:
        """Denoise one request in a loop of its own; the latents of its picture."""
        done, answers = threading.Event(), []

        def send(event: Event, latents: Array | None, summary: Summary | None) -> None:
            answers.append(latents)
            if summary is not None:
                done.set()

        def fail(error: RequestError, summary: Summary) -> None:
            answers.append(error)
            done.set()

        loop = Loop(Batcher(self.denoise, self._pipeline.capacity))
        loop.submit(build(send=send, fail=fail))
        done.wait()
        loop.close()
        if isinstance(answers[-1], RequestError):
            raise answers[-1]
        return answers[-1]

    def _run(self, component: Component, inputs: dict[str, Array]) -> list[Array]:
        outputs: list[Array] = self._sessions[component.name].run(
            [tensor.name for tensor in component.outputs], inputs
        )
        return outputs
