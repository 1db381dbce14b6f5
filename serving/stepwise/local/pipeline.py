"""Runs an exported pipeline with ONNX Runtime in this process."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from google.protobuf import text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2

from stepwise.batching.request import Picture, Request, encoded
from stepwise.description.errors import InvalidRequest
from stepwise.description.family import Family
from stepwise.description.fields import Array
from stepwise.description.graph_files import GRAPH, THREADS
from stepwise.description.manifest import Manifest
from stepwise.description.settings import Settings
from stepwise.description.spec import INPAINT_LATENTS, Component, Tensor
from stepwise.encoding.prompts import bound, encode_prompts
from stepwise.families import FAMILIES
from stepwise.local.steps import decode, denoise
from stepwise.request.prepare import Preparer
from stepwise.video.image_conditioning import inpaint_latents

Setting = str | int | float | Sequence[int] | NDArray[np.uint8]

_TYPES: Mapping[str, Any] = {
    "BOOL": np.bool_,
    "FP32": np.float32,
    "INT32": np.int32,
    "INT64": np.int64,
}


def open_session(graph: Path) -> onnxruntime.InferenceSession:
    """Open a graph of a model repository with the same thread settings as on the server."""
    text = (graph.parent.parent / "config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(config.parameters[THREADS].string_value)
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class LocalPipeline:
    """Makes the same pictures or videos as a server on the same repository."""

    def __init__(self, repository: str | Path, name: str) -> None:
        """Load the graphs of the pipeline ``name`` into memory.

        Raises UnusableFile if ``repository`` holds no such pipeline.
        """
        folder = Path(repository, name)
        self._prepare = Preparer(FAMILIES[Manifest.read(folder).family], folder)
        self._sessions = {
            component.name: open_session(Path(repository, f"{name}_{component.name}", "1", GRAPH))
            for component in self.family.components
        }

    @property
    def family(self) -> Family:
        """The family of the pipeline."""
        return self._prepare.family

    @property
    def manifest(self) -> Manifest:
        """The manifest of the exported checkpoint."""
        return self._prepare.manifest

    def generate(self, prompt: str, **settings: Setting) -> list[Array]:
        """Make the pictures of a request, uint8 (height, width, 3) each, or its one video, uint8
        (frames, height, width, 3).

        ``settings`` are the same as in a request to the server: ``steps=20, seed=7,
        num_images=2``. Raises InvalidRequest if a setting is not allowed.
        """
        request, decoder = self.request(prompt, **settings), self.family.decoder
        return [
            decode(decoder, latents, request.settings.video, bound(self.run, decoder))
            for together in _batches(request)
            for latents in denoise(together, self.predict)
        ]

    def request(self, prompt: str, **settings: Setting) -> Request:
        """Encode the texts and images of a request and return the request for the denoiser.

        Raises InvalidRequest as ``generate`` does.
        """
        inputs = dict(self._tensors({"prompt": prompt, **settings}))
        prepared, resolved = self._prepare(inputs, time.monotonic())
        embeddings = encode_prompts(self.family, prepared, resolved, self.run)
        if self.family.image_encoder is not None:
            embeddings[INPAINT_LATENTS.name] = self._encode_images(inputs, resolved)
        return encoded(self.family, "", resolved, embeddings, _nobody, _nobody)

    def predict(self, feed: Mapping[str, Array]) -> Any:
        """Call the denoiser once with inputs by name; the prediction is (rows, *latent shape)."""
        denoiser = self.family.denoiser
        return self.run(denoiser, feed)[denoiser.outputs[0].name]

    def run(self, component: Component, feed: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run a component; inputs and outputs are by name."""
        session = self._sessions[component.name]
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(feed)), strict=True))

    def _tensors(self, settings: Mapping[str, Setting]) -> Iterator[tuple[str, Array]]:
        known = {tensor.name: tensor for tensor in self.family.request}
        for name, value in settings.items():
            if name not in known:
                raise InvalidRequest(f"{name}: got {value!r}; allowed are {', '.join(known)}")
            yield name, _tensor(known[name], value)

    def _encode_images(self, inputs: Mapping[str, Array], settings: Settings) -> Array:
        video, layout = self.family.video, settings.video
        assert video is not None
        assert video.image_encoder is not None
        assert layout is not None
        start, end = (inputs.get(tensor.name) for tensor in video.images)
        assert start is not None
        return inpaint_latents(bound(self.run, video.image_encoder), start, end, settings, layout)


def _batches(request: Request) -> Iterator[list[Picture]]:
    """The pictures of a request, in groups that fit in one denoiser call."""
    pictures = list(request.pictures())
    count = max(request.settings.batch_cap // len(request.row_conditioning), 1)
    for start in range(0, len(pictures), count):
        yield pictures[start : start + count]


def _tensor(tensor: Tensor, value: Setting) -> Array:
    if tensor.dtype == "BYTES":
        return np.asarray([str(value).encode()], np.object_)
    if len(tensor.dims) > 1:
        return np.asarray(value)
    try:
        return np.asarray(value, _TYPES[tensor.dtype]).reshape(tuple(map(int, tensor.dims)))
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidRequest(f"{tensor.name}: got {value!r}, which is no {tensor.dtype}") from error


def _nobody(*_answer: object) -> None:
    """Ignore responses, which a local request does not need."""
