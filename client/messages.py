"""Triton's gRPC messages: requests out of settings, and what model configs say."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import serialize_byte_tensor, triton_to_np_dtype

from client.errors import InvalidRequest

Setting = str | int | float


@dataclass(frozen=True)
class About:
    """What a server says of a pipeline before it is asked for a picture.

    ``defaults`` is what it takes for settings that a request leaves out; ``ranges`` gives numbers
    their least and greatest value, for example ``{"steps": [1, 100]}``; ``samplers`` are the words
    that the setting of this name may be.
    """

    defaults: Mapping[str, Any]
    ranges: Mapping[str, Any]
    samplers: tuple[str, ...]


@dataclass(frozen=True)
class Request:
    """What is asked of a pipeline. ``id`` is the request's name in logs and for cancelling it."""

    pipeline: str
    settings: Mapping[str, Setting]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def message(self, model_config: Any) -> Any:
        """A ``ModelInferRequest`` with each setting as a tensor of shape (1,).

        Raises InvalidRequest for a setting that the pipeline lacks or that cannot be converted.
        """
        return _inference(self.pipeline, self.id, input_types(model_config), self.settings)

    def cancelling(self) -> Any:
        """A ``ModelInferRequest`` that stops this one.

        It goes to the model that denoises, as the end of a stream does not reach models inside an
        ensemble (Triton 24.10).
        """
        return _inference(f"{self.pipeline}_denoise", "", {"cancel": "BYTES"}, {"cancel": self.id})


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
    return About(request["defaults"], request["ranges"], tuple(request["samplers"]))


def _inference(
    model: str, request_id: str, known: Mapping[str, str], tensors: Mapping[str, Setting]
) -> Any:
    message = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    for name, value in tensors.items():
        if name not in known:
            has = ", ".join(known)
            raise InvalidRequest(f"{name}: {model} has no such setting; it has {has}")
        message.inputs.add(name=name, datatype=known[name], shape=[1])
        message.raw_input_contents.append(_bytes(_convert(name, value, known[name])))
    return message


def _convert(name: str, value: Setting, dtype: str) -> npt.NDArray[Any]:
    if dtype == "BYTES":
        return np.asarray([str(value).encode()], np.object_)
    try:
        number: float = float(value) if dtype.startswith("FP") else int(value)
        converted = np.asarray([number]).astype(triton_to_np_dtype(dtype))
        if isinstance(number, int) and converted[0] != number:
            raise OverflowError
        return converted
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(
            f"{name}: got {value!r}; a number of type {dtype} is needed"
        ) from error


def _bytes(values: npt.NDArray[Any]) -> bytes:
    serialized: bytes = (
        serialize_byte_tensor(values).item() if values.dtype == np.object_ else values.tobytes()
    )
    return serialized
