"""Triton's gRPC messages: builds requests from settings and reads model configs."""

import difflib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import serialize_byte_tensor, triton_to_np_dtype

from stepwise.client.errors import InvalidRequest, ServerUnavailable

# In a recorded request: the pipeline's name, and the file of an input picture.
PIPELINE, FILE = "pipeline", "file"

Setting = str | int | float | Sequence[int] | npt.NDArray[np.uint8]

# Before the names of the pipelines, in the name of a server that ``stepwise serve`` started.
_SERVER_ID = "stepwise:"

# The input of a pipeline that is no setting: the ID of a request to cancel.
_CANCEL = "cancel"

# The two values of a setting that is true or false, in this order.
_TRUTH = ("false", "true")

# By the output that a method needs: the error for a pipeline without it.
_WANTED = {
    "image": "makes videos, no pictures; call video() or generate()",
    "video": "makes pictures, no videos; call pictures() or generate()",
}


@dataclass(frozen=True)
class About:
    """A pipeline's description, from its server.

    ``defaults`` are the values of omitted settings. ``ranges`` are the minimum and maximum of
    numbers, for example ``{"steps": [1, 100]}``. ``samplers`` are the values that ``sampler``
    allows. ``settings`` are the names of all settings, ``images`` of those that are pictures.
    ``family`` is the model family, for example sdxl, independent of the served name.
    """

    defaults: Mapping[str, Any]
    ranges: Mapping[str, Any]
    samplers: tuple[str, ...]
    settings: tuple[str, ...]
    family: str
    images: tuple[str, ...] = ()

    @property
    def makes_videos(self) -> bool:
        """Whether the pipeline makes videos, not pictures."""
        return "frames" in self.defaults


@dataclass(frozen=True)
class Request:
    """A request to a pipeline. ``id`` identifies it in logs and when it is cancelled.

    ``wanted`` is the output that the pipeline must have; None accepts either.
    """

    pipeline: str
    settings: Mapping[str, Setting]
    wanted: Literal["image", "video"] | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def message(self, model_config: Any) -> Any:
        """A ``ModelInferRequest`` with each setting as a tensor: a text, numbers or a picture.

        Raises InvalidRequest for an unknown setting, a value that cannot be converted, or a
        pipeline without the ``wanted`` output.
        """
        if self.wanted and self.wanted not in {tensor.name for tensor in model_config.output}:
            raise InvalidRequest(f"{self.pipeline} {_WANTED[self.wanted]}")
        dims = {tensor.name: tuple(tensor.dims) for tensor in model_config.input}
        known = {name: (kind, dims[name]) for name, kind in input_types(model_config).items()}
        return _inference(self.pipeline, self.id, known, self.settings)

    def recorded(self, about: About) -> dict[str, Any]:
        """The request with all defaults, for the file of a result; its values are JSON's.

        An input picture is recorded as one without a file.
        """
        given = {name: _plain(value) for name, value in self.settings.items()}
        return {**about.defaults, PIPELINE: self.pipeline, **given}

    def again(self, seed: int | None) -> "Request":
        """The request for a second attempt, with the ``seed`` of the first one if it is known.

        It has another ID because the server of the first attempt may still work on it.
        """
        seeds = {} if seed is None else {"seed": seed}
        return replace(self, id=str(uuid.uuid4()), settings={**self.settings, **seeds})

    def cancelling(self) -> Any:
        """A ``ModelInferRequest`` that cancels this one.

        The end of a stream alone reaches a pipeline only with the request's next response.
        """
        return _inference(self.pipeline, "", {_CANCEL: ("BYTES", (1,))}, {_CANCEL: self.id})


def config(model: str) -> Any:
    """A ``ModelConfigRequest``."""
    return service_pb2.ModelConfigRequest(name=model)


def server_metadata() -> Any:
    """A ``ServerMetadataRequest``."""
    return service_pb2.ServerMetadataRequest()


def pipelines(metadata: Any, url: str) -> tuple[str, ...]:
    """The pipelines in a ``ServerMetadataResponse`` of the server at ``url``.

    Raises ServerUnavailable for a Triton that ``stepwise serve`` did not start.
    """
    before, _, names = metadata.name.partition(_SERVER_ID)
    if before or not names:
        raise ServerUnavailable(f"{url}: the server does not list pipelines: start stepwise serve")
    return tuple(names.split(","))


def unknown_pipeline(pipeline: str, served: Sequence[str]) -> InvalidRequest:
    """The error for a pipeline that no server serves."""
    close = difflib.get_close_matches(pipeline, served, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return InvalidRequest(f"pipeline: got {pipeline!r}; served are {', '.join(served)}{hint}")


def input_types(model_config: Any) -> dict[str, str]:
    """The names and Triton types of a pipeline's settings, e.g. ``{"prompt": "BYTES"}``."""
    generated: Any = model_config_pb2
    inputs = [tensor for tensor in model_config.input if tensor.name != _CANCEL]
    names = {tensor.name: tensor.data_type for tensor in inputs}
    return {
        name: generated.DataType.Name(number).removeprefix("TYPE_").replace("STRING", "BYTES")
        for name, number in names.items()
    }


def about(model_config: Any) -> About:
    """The pipeline's description in the config of its model."""
    request = json.loads(model_config.parameters["request"].string_value)
    return About(
        defaults=request["defaults"],
        ranges=request["ranges"],
        samplers=tuple(request["samplers"]),
        settings=tuple(input_types(model_config)),
        family=model_config.parameters["pipeline"].string_value,
        images=tuple(tensor.name for tensor in model_config.input if len(tensor.dims) == 3),
    )


def _inference(
    model: str,
    request_id: str,
    known: Mapping[str, tuple[str, tuple[int, ...]]],
    tensors: Mapping[str, Setting],
) -> Any:
    """A ``ModelInferRequest``; ``known`` is the type and dims of each model input."""
    message = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    for name, value in tensors.items():
        if name not in known:
            has = ", ".join(known)
            raise InvalidRequest(f"{name}: {model} has no such setting; it has {has}")
        dtype, dims = known[name]
        converted = _image(name, value) if len(dims) == 3 else _convert(name, value, dtype, dims[0])
        message.inputs.add(name=name, datatype=dtype, shape=converted.shape)
        message.raw_input_contents.append(_bytes(converted))
    return message


def _plain(value: Any) -> Any:
    """A setting as JSON has it."""
    if isinstance(value, np.ndarray):
        return {FILE: None}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float) else str(value)


def _image(name: str, value: Setting) -> npt.NDArray[np.uint8]:
    """The picture, uint8 (height, width, 3). Raises InvalidRequest for anything else."""
    if (
        isinstance(value, np.ndarray)
        and value.dtype == np.uint8
        and (value.ndim, value.shape[-1:]) == (3, (3,))
        and value.size
    ):
        return value
    raise InvalidRequest(
        f"{name}: got {_told(value)}; a picture is needed, as an array of uint8 (height, width, 3)"
    )


def _told(value: Setting) -> str:
    """A setting as error messages show it."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {value.shape}"
    return repr(value)


def _convert(name: str, value: Setting, dtype: str, length: int) -> npt.NDArray[Any]:
    if dtype == "BYTES":
        return np.asarray([str(value).encode()], np.object_)
    try:
        numbers = [_number(item, dtype) for item in _items(value)]
        converted = np.asarray(numbers).astype(triton_to_np_dtype(dtype))
        if len(numbers) != length or (not dtype.startswith("FP") and any(converted != numbers)):
            raise OverflowError
        return converted
    except (ValueError, OverflowError, TypeError) as error:
        number = "a number" if length == 1 else f"{length} numbers separated by a comma,"
        due = "true or false" if dtype == "BOOL" else f"{number} of type {dtype}"
        raise InvalidRequest(f"{name}: got {_told(value)}; {due} is needed") from error


def _items(value: Setting) -> Sequence[Any]:
    """The items of a setting: ``8,0`` and ``(8, 0)`` are two numbers."""
    if isinstance(value, str):
        return value.split(",")
    return value if isinstance(value, Sequence) else [value]


def _number(item: Any, dtype: str) -> float:
    if dtype == "BOOL":
        return _TRUTH.index(str(item).lower())
    return float(item) if dtype.startswith("FP") else int(item)


def _bytes(values: npt.NDArray[Any]) -> bytes:
    serialized: bytes = (
        serialize_byte_tensor(values).item() if values.dtype == np.object_ else values.tobytes()
    )
    return serialized
