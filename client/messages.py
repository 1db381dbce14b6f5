"""Triton's gRPC messages: requests out of settings, and what model configs say."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import serialize_byte_tensor, triton_to_np_dtype

from client.errors import InvalidRequest

Setting = str | int | float | Sequence[int]


@dataclass(frozen=True)
class About:
    """What a server says of a pipeline before it is asked for a picture.

    ``defaults`` is what it takes for settings that a request leaves out; ``ranges`` gives numbers
    their least and greatest value, for example ``{"steps": [1, 100]}``; ``samplers`` are the words
    that the setting of this name may be. ``settings`` are the names of all that a request may say,
    ``family`` is what the pipeline is one of, whatever name it is served under, for example sdxl.
    """

    defaults: Mapping[str, Any]
    ranges: Mapping[str, Any]
    samplers: tuple[str, ...]
    settings: tuple[str, ...]
    family: str


@dataclass(frozen=True)
class Request:
    """What is asked of a pipeline. ``id`` is the request's name in logs and for cancelling it."""

    pipeline: str
    settings: Mapping[str, Setting]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def message(self, model_config: Any) -> Any:
        """A ``ModelInferRequest`` with each setting as a tensor of one number or text, or a few.

        Raises InvalidRequest for a setting that the pipeline lacks or that cannot be converted.
        """
        lengths = {tensor.name: tensor.dims[0] for tensor in model_config.input}
        known = {name: (kind, lengths[name]) for name, kind in input_types(model_config).items()}
        return _inference(self.pipeline, self.id, known, self.settings)

    def cancelling(self) -> Any:
        """A ``ModelInferRequest`` that stops this one.

        It goes to the model that denoises, as the end of a stream does not reach models inside an
        ensemble (Triton 24.10).
        """
        known = {"cancel": ("BYTES", 1)}
        return _inference(f"{self.pipeline}_denoise", "", known, {"cancel": self.id})


def config(model: str) -> Any:
    """A ``ModelConfigRequest``."""
    return service_pb2.ModelConfigRequest(name=model)


def input_types(model_config: Any) -> dict[str, str]:
    """The names and Triton types of a model's inputs, e.g. ``{"prompt": "BYTES"}``."""
    generated: Any = model_config_pb2
    names = {tensor.name: tensor.data_type for tensor in model_config.input}
    return {
        name: generated.DataType.Name(number).removeprefix("TYPE_").replace("STRING", "BYTES")
        for name, number in names.items()
    }


def about(model_config: Any) -> About:
    """What the config of ``<pipeline>_prepare`` says."""
    request = json.loads(model_config.parameters["request"].string_value)
    return About(
        defaults=request["defaults"],
        ranges=request["ranges"],
        samplers=tuple(request["samplers"]),
        settings=tuple(input_types(model_config)),
        family=model_config.parameters["pipeline"].string_value,
    )


def _inference(
    model: str,
    request_id: str,
    known: Mapping[str, tuple[str, int]],
    tensors: Mapping[str, Setting],
) -> Any:
    """A ``ModelInferRequest``; ``known`` has the type and length of each of the model's inputs."""
    message = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    for name, value in tensors.items():
        if name not in known:
            has = ", ".join(known)
            raise InvalidRequest(f"{name}: {model} has no such setting; it has {has}")
        dtype, length = known[name]
        message.inputs.add(name=name, datatype=dtype, shape=[length])
        message.raw_input_contents.append(_bytes(_convert(name, value, dtype, length)))
    return message


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
        due = "a number" if length == 1 else f"{length} numbers separated by a comma,"
        raise InvalidRequest(f"{name}: got {value!r}; {due} of type {dtype} is needed") from error


def _items(value: Setting) -> Sequence[str | int | float]:
    """A setting as a list: ``8,0`` and ``(8, 0)`` are two numbers."""
    if isinstance(value, str):
        return value.split(",")
    return value if isinstance(value, Sequence) else [value]


def _number(item: str | int | float, dtype: str) -> float:
    return float(item) if dtype.startswith("FP") else int(item)


def _bytes(values: npt.NDArray[Any]) -> bytes:
    serialized: bytes = (
        serialize_byte_tensor(values).item() if values.dtype == np.object_ else values.tobytes()
    )
    return serialized
