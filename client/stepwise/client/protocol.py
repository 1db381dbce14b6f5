"""Triton's gRPC messages: requests out of settings, and what model configs say."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import serialize_byte_tensor, triton_to_np_dtype

from stepwise.client.errors import InvalidRequest

Setting = str | int | float | Sequence[int] | npt.NDArray[np.uint8]

# What a caller may want of a pipeline, by the ensemble's output, and who is to be asked instead.
_WANTED = {
    "image": "makes videos, no pictures; ask it with video() or generate()",
    "video": "makes pictures, no videos; ask it with pictures() or generate()",
}


@dataclass(frozen=True)
class About:
    """What a server says of a pipeline before it is asked for anything.

    ``defaults`` is what it takes for settings that a request leaves out; ``ranges`` gives numbers
    their least and greatest value, for example ``{"steps": [1, 100]}``; ``samplers`` are the words
    that the setting of this name may be. ``settings`` are the names of all that a request may say,
    ``family`` is what the pipeline is one of, whatever name it is served under, for example sdxl.
    ``images`` are those of the settings that are pictures.
    """

    defaults: Mapping[str, Any]
    ranges: Mapping[str, Any]
    samplers: tuple[str, ...]
    settings: tuple[str, ...]
    family: str
    images: tuple[str, ...] = ()

    @property
    def makes_videos(self) -> bool:
        """Whether an answer is a video of several frames, not pictures."""
        return "frames" in self.defaults


@dataclass(frozen=True)
class Request:
    """What is asked of a pipeline. ``id`` is the request's name in logs and for cancelling it.

    ``wanted`` is the output without which the pipeline is not asked; None takes whatever it makes.
    """

    pipeline: str
    settings: Mapping[str, Setting]
    wanted: Literal["image", "video"] | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def message(self, model_config: Any) -> Any:
        """A ``ModelInferRequest`` with each setting as a tensor: a text, numbers or a picture.

        Raises InvalidRequest for a setting that the pipeline lacks or that cannot be converted, and
        for a pipeline that does not make what is wanted.
        """
        if self.wanted and self.wanted not in {tensor.name for tensor in model_config.output}:
            raise InvalidRequest(f"{self.pipeline} {_WANTED[self.wanted]}")
        dims = {tensor.name: tuple(tensor.dims) for tensor in model_config.input}
        known = {name: (kind, dims[name]) for name, kind in input_types(model_config).items()}
        return _inference(self.pipeline, self.id, known, self.settings)

    def cancelling(self) -> Any:
        """A ``ModelInferRequest`` that stops this one.

        It goes to the model that denoises, as the end of a stream does not reach models inside an
        ensemble (Triton 24.10).
        """
        known = {"cancel": ("BYTES", (1,))}
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
        images=tuple(tensor.name for tensor in model_config.input if len(tensor.dims) == 3),
    )


def _inference(
    model: str,
    request_id: str,
    known: Mapping[str, tuple[str, tuple[int, ...]]],
    tensors: Mapping[str, Setting],
) -> Any:
    """A ``ModelInferRequest``; ``known`` has the type and dims of each of the model's inputs."""
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


def _image(name: str, value: Setting) -> npt.NDArray[np.uint8]:
    """A picture as it is, uint8 (height, width, 3); InvalidRequest if it is anything else."""
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
    """A setting as an error names it."""
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
        due = "a number" if length == 1 else f"{length} numbers separated by a comma,"
        raise InvalidRequest(
            f"{name}: got {_told(value)}; {due} of type {dtype} is needed"
        ) from error


def _items(value: Setting) -> Sequence[Any]:
    """A setting as a list: ``8,0`` and ``(8, 0)`` are two numbers."""
    if isinstance(value, str):
        return value.split(",")
    return value if isinstance(value, Sequence) else [value]


def _number(item: Any, dtype: str) -> float:
    return float(item) if dtype.startswith("FP") else int(item)


def _bytes(values: npt.NDArray[Any]) -> bytes:
    serialized: bytes = (
        serialize_byte_tensor(values).item() if values.dtype == np.object_ else values.tobytes()
    )
    return serialized
