"""The vocabulary in which a family is described: tensors, components, and what travels between."""

from dataclasses import dataclass
from typing import Literal

DType = Literal["FP32", "FP16", "INT32", "INT64", "UINT8", "BYTES"]
# A multiple of a dynamic axis is written ``8*height``.
Dim = int | str


@dataclass(frozen=True)
class Tensor:
    """A named tensor.

    A dim is a number, -1 where only the checkpoint knows it, or the name of a dynamic axis, or a
    multiple of one.
    """

    name: str
    dtype: DType
    dims: tuple[Dim, ...]
    optional: bool = False


@dataclass(frozen=True)
class Range:
    """The least, usual and greatest size of a dynamic axis."""

    minimum: int
    usual: int
    maximum: int


@dataclass(frozen=True)
class Component:
    """One graph of a checkpoint, served as ``<pipeline>_<name>``.

    ``subfolder`` is its place in a diffusers checkpoint, ``tokenizer`` that of its tokenizer if
    it is a text encoder. The first input of one is token ids, those of a ``chat`` in which the
    prompt is a message; of such a one the second is the tokens' attention mask. Further inputs are
    named after settings. ``max_batch`` is how many requests Triton may batch for
    it; 0 leaves batching to the caller, who then passes any batch. An ``optional`` one may be
    missing. ``format`` is raised by whoever changes what is written of it, its graph or its config.
    """

    name: str
    subfolder: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch: int = 0
    tokenizer: str = ""
    chat: bool = False
    optional: bool = False
    format: int = 1

    @property
    def mask(self) -> Tensor | None:
        """The input of a text encoder that is the tokens' attention mask, if it has one."""
        return self.inputs[1] if self.chat else None

    @property
    def settings(self) -> tuple[Tensor, ...]:
        """The inputs of a text encoder that are named after settings."""
        return self.inputs[2 if self.chat else 1 :] if self.tokenizer else ()


# What a request may say of how it is served; every pipeline takes them.
SERVING = (
    Tensor("preview_every", "INT32", (1,), optional=True),
    Tensor("deadline_ms", "INT32", (1,), optional=True),
    Tensor("priority", "INT32", (1,), optional=True),
    Tensor("client", "BYTES", (1,), optional=True),
)
CANCEL = Tensor("cancel", "BYTES", (1,), optional=True)
SETTINGS = Tensor("settings", "BYTES", (1,))
IMAGES = (
    Tensor("start_image", "UINT8", (-1, -1, 3), optional=True),
    Tensor("end_image", "UINT8", (-1, -1, 3), optional=True),
)
# What the denoiser is told of the images that a video continues: a mask and latents, side by side.
INPAINT_LATENTS = Tensor("inpaint_latents", "FP32", (-1, -1, -1, -1))
EVENT = Tensor("event", "BYTES", (1,))
# The id of a request whose video has left ``decode``: only then is there room for another.
DECODED = Tensor("decoded", "BYTES", (1,), optional=True)


def axis(dim: str) -> tuple[int, str]:
    """A dynamic dim as a multiple and the name of its axis: ``8*height`` is 8 and ``height``."""
    times, _, name = dim.rpartition("*")
    return int(times or 1), name


def ensemble_name(role: str, encoder: Component, tensor: Tensor) -> str:
    """What an encoder's tensor is called between the models, e.g. ``negative_clip_l_pooled``."""
    return f"{role}{encoder.name}_{tensor.name}"


def pictures(kind: Tensor) -> tuple[Tensor, ...]:
    """The response tensors of a pipeline whose pictures come in ``kind``.

    None may have the name of a request tensor: in an ensemble they would be one tensor.
    """
    return (
        kind,
        Tensor("kind", "BYTES", (1,)),
        Tensor("index", "INT32", (1,)),
        Tensor("step", "INT32", (1,)),
        Tensor("total_steps", "INT32", (1,)),
        Tensor("used_seed", "INT64", (1,)),
        Tensor("timings_ms", "FP32", (2,)),
        Tensor("mean_batch", "FP32", (1,)),
        Tensor("notes", "BYTES", (-1,)),
    )
