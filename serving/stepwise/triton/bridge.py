"""The models' interface to Triton: tensors in and out, calls of other models, errors."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from stepwise.description.errors import ModelFailed, RequestError, Unavailable, stopping
from stepwise.description.fields import Array
from stepwise.description.spec import Component, Tensor
from stepwise.description.vae_caches import Cache, with_caches
from stepwise.encoding.prompts import Run
from stepwise.request.call_limit import CallLimit

log = logging.getLogger(__name__)

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
# Part of Triton's error for a model's calls during shutdown.
_STOPPING = "Server not ready"
# Part of Triton's error for a call of a model without its process.
_DEAD = "is not healthy"


def parameter(args: Mapping[str, str], name: str) -> str:
    """A string parameter of the model's config."""
    return str(json.loads(args["model_config"])["parameters"][name]["string_value"])


def metric_families() -> Any:
    """``pb_utils.MetricFamily``, which exists only while a model is being initialized or runs."""
    return pb_utils.MetricFamily


def unpack(request: Any) -> dict[str, Array]:
    """The request's input tensors by name."""
    return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}


def pack(outputs: Mapping[str, Array]) -> Any:
    """A response with these output tensors."""
    return pb_utils.InferenceResponse([pb_utils.Tensor(k, v) for k, v in outputs.items()])


def as_request_error(error: Exception) -> RequestError:
    """The error for the client; any error other than a RequestError is logged in full."""
    if isinstance(error, RequestError):
        return error
    log.error("a request failed unexpectedly", exc_info=error)
    return RequestError(f"the server failed to process this request: {error!r}")


def failure(error: Exception) -> Any:
    """A response that carries the error."""
    told = as_request_error(error)
    # A streamed error reaches the client only as text, so the text includes its code. Triton lacks
    # some of gRPC's codes.
    code = getattr(pb_utils.TritonError, told.code, pb_utils.TritonError.UNAVAILABLE)
    return pb_utils.InferenceResponse([], pb_utils.TritonError(f"[{told.code}] {told}", code))


class Kept:
    """An output of another model that becomes an input of its next call without a copy.

    The caches of a video autoencoder take gigabytes for large frames.
    """

    def __init__(self, answer: Any, name: str) -> None:
        # The response owns the tensor's memory.
        self._answer = answer
        self._tensor = pb_utils.get_output_tensor_by_name(answer, name)

    def named(self, name: str) -> Any:
        """The tensor, renamed for use as an input."""
        return pb_utils.Tensor.from_dlpack(name, self._tensor.to_dlpack())


class Prepared:
    """An input for several calls, which is copied into shared memory once."""

    def __init__(self, name: str, value: Array) -> None:
        self._tensor = pb_utils.Tensor(name, value)

    def named(self, name: str) -> Any:
        """The tensor, which keeps its name."""
        return self._tensor


Input = Array | Kept | Prepared


class Graphs:
    """Calls a pipeline's graphs over BLS; each is a model ``<pipeline>_<component>``."""

    def __init__(self, pipeline: str, limit: CallLimit) -> None:
        """``limit`` publishes when each call must have returned."""
        self._pipeline = pipeline
        self._limit = limit

    def run(
        self,
        component: Component,
        inputs: Mapping[str, Input],
        kept: Sequence[Tensor] = (),
    ) -> dict[str, Any]:
        """Run a component and return its outputs by name: arrays, and ``kept`` ones as ``Kept``.

        Raises ModelFailed if the graph fails, and Unavailable if its process has ended or Triton is
        stopping.
        """
        model = f"{self._pipeline}_{component.name}"
        work = sum(value.size for value in inputs.values() if isinstance(value, np.ndarray))
        with self._limit.calling(model, work):
            answer = _answer(model, inputs, (*component.outputs, *kept))
        if answer.has_error():
            raise _failed(model, answer.error().message())
        read = (pb_utils.get_output_tensor_by_name(answer, o.name) for o in component.outputs)
        # The response owns the tensors' memory.
        copies = {tensor.name(): tensor.as_numpy().copy() for tensor in read}
        return {**copies, **{output.name: Kept(answer, output.name) for output in kept}}

    def slices(self, component: Component, caches: Sequence[Cache]) -> Run:
        """A function that runs an autoencoder on slices of a video, and keeps its ``caches``."""
        kept = with_caches(component, caches).outputs[len(component.outputs) :]
        return lambda inputs: self.run(component, inputs, kept)


def _failed(model: str, message: str) -> RequestError:
    if _STOPPING in message:
        return stopping()
    if _DEAD in message:
        return Unavailable(f"the process of {model} has ended; the server must restart")
    return ModelFailed(f"{model}: {message}")


def _answer(model: str, inputs: Mapping[str, Input], outputs: Sequence[Tensor]) -> Any:
    return pb_utils.InferenceRequest(
        model_name=model,
        requested_output_names=[output.name for output in outputs],
        inputs=[
            pb_utils.Tensor(name, value) if isinstance(value, np.ndarray) else value.named(name)
            for name, value in inputs.items()
        ],
        # A model on a GPU would leave its outputs there, and numpy cannot read them.
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
    ).exec()
