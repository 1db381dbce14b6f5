"""The models' interface to Triton: tensors in and out, calls of other models, errors."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import triton_python_backend_utils as pb_utils

from stepwise.description.errors import ModelFailed, RequestError, Unavailable, stopping
from stepwise.description.fields import Array
from stepwise.description.spec import Tensor
from stepwise.request import shared_state
from stepwise.request.call_limit import CallLimit
from stepwise.request.log import write as log_request
from stepwise.request.signature import Signer

log = logging.getLogger(__name__)

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
# Part of Triton's error for a model's calls during shutdown.
_STOPPING = "Server not ready"
# Part of Triton's error for a call of a model without its process.
_DEAD = "is not healthy"


def parameter(args: Mapping[str, str], name: str) -> str:
    """A string parameter of the model's config."""
    return str(json.loads(args["model_config"])["parameters"][name]["string_value"])


def signer(pipeline: str) -> Signer:
    """Signs and checks the messages between the models of ``pipeline``."""
    return Signer(shared_state.key(shared_state.folder()), pipeline)


def call_limit(pipeline: str, stage: str) -> CallLimit:
    """The limit for the calls of one stage of ``pipeline``."""
    return CallLimit(shared_state.folder(), pipeline, stage)


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


def refuse(request: Any, pipeline: str, error: Exception, **described: Any) -> Any:
    """Log that a request ends here with ``error``, and return the response that carries it."""
    refused = as_request_error(error)
    record = {"id": request.request_id(), "pipeline": pipeline, **described}
    log_request({**record, "outcome": refused.code, "error": str(refused)})
    return failure(refused)


def send(sender: Any, answer: Any, last: bool) -> None:
    """Send one response, or with None only its flag; ignore an error if the client has left."""
    try:
        if answer is None:
            sender.send(flags=FINAL if last else 0)
        else:
            sender.send(answer, flags=FINAL if last else 0)
    except pb_utils.TritonModelException as error:
        log.info("cannot deliver a response: %s", error)


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


def call(
    limit: CallLimit,
    model: str,
    inputs: Mapping[str, Array | Kept],
    outputs: Sequence[Tensor],
    kept: Sequence[Tensor] = (),
) -> dict[str, Any]:
    """Run another model over BLS and return its outputs by name.

    ``outputs`` are copied to arrays; ``kept`` outputs become ``Kept``. ``limit`` publishes when the
    call must have returned. Raises ModelFailed if the model fails, and Unavailable if its process
    has ended or Triton is stopping.
    """
    work = sum(0 if isinstance(value, Kept) else value.size for value in inputs.values())
    with limit.calling(model, work):
        answer = _answer(model, inputs, (*outputs, *kept))
    if answer.has_error():
        message = answer.error().message()
        if _STOPPING in message:
            raise stopping()
        if _DEAD in message:
            raise Unavailable(f"the process of {model} has ended; the server must restart")
        raise ModelFailed(f"{model}: {message}")
    read = (pb_utils.get_output_tensor_by_name(answer, output.name) for output in outputs)
    # The response owns the tensors' memory.
    copies = {tensor.name(): tensor.as_numpy().copy() for tensor in read}
    return {**copies, **{output.name: Kept(answer, output.name) for output in kept}}


def _answer(model: str, inputs: Mapping[str, Array | Kept], outputs: Sequence[Tensor]) -> Any:
    return pb_utils.InferenceRequest(
        model_name=model,
        requested_output_names=[output.name for output in outputs],
        inputs=[
            value.named(name) if isinstance(value, Kept) else pb_utils.Tensor(name, value)
            for name, value in inputs.items()
        ],
        # A model on a GPU would leave its outputs there, and numpy cannot read them.
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
    ).exec()


def tell(model: str, inputs: Mapping[str, Array]) -> None:
    """Send a decoupled model a message over BLS and ignore its empty response.

    A stopping server refuses the message, which is only logged.
    """
    request = pb_utils.InferenceRequest(
        model_name=model,
        requested_output_names=[],
        inputs=[pb_utils.Tensor(name, value) for name, value in inputs.items()],
    )
    for answer in request.exec(decoupled=True):
        if answer.has_error():
            log.info("%s refused %s: %s", model, list(inputs), answer.error().message())
