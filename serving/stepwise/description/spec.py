"""The types that describe a family: tensors, components, and the tensors of requests."""

from dataclasses import dataclass
from typing import Literal

DType = Literal["FP32", "FP16", "INT32", "INT64", "UINT8", "BOOL", "BYTES"]
# A multiple of a dynamic axis is written ``8*height``.
Dim = int | str


@dataclass(frozen=True)
class Tensor:
    """A named tensor.

    A dim is a number, -1 if it depends on the checkpoint, or a dynamic axis or a multiple of one.
    """

    name: str
    dtype: DType
    dims: tuple[Dim, ...]
    optional: bool = False


@dataclass(frozen=True)
class Range:
    """The smallest, usual and largest size of a dynamic axis."""

    minimum: int
    usual: int
    maximum: int


@dataclass(frozen=True)
class Component:
    """One graph of a checkpoint, served as ``<pipeline>_<name>``.

    ``subfolder`` is its folder in a diffusers checkpoint. ``tokenizer`` is the folder of a text
    encoder's tokenizer. A text encoder's inputs are token ids, then inputs named after settings. In
    a ``chat`` encoder the prompt is a message of a chat, and an attention mask follows the ids.
    Triton batches up to ``max_batch`` requests; with 0 the caller passes batches of any size. A
    checkpoint may lack an ``optional`` component. A change to the exported graph increments
    ``format``.
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
        """The attention mask input of a text encoder, if it has one."""
        return self.inputs[1] if self.chat else None

    @property
    def settings(self) -> tuple[Tensor, ...]:
        """The text encoder inputs that are named after settings."""
        return self.inputs[2 if self.chat else 1 :] if self.tokenizer else ()


# Request tensors of every pipeline that control serving, not the picture.
SERVING = (
    # Without progress, a picture gets one response, which Triton's ``generate`` needs.
    Tensor("progress", "BOOL", (1,), optional=True),
    Tensor("preview_every", "INT32", (1,), optional=True),
    Tensor("deadline_ms", "INT32", (1,), optional=True),
    Tensor("priority", "INT32", (1,), optional=True),
    Tensor("client", "BYTES", (1,), optional=True),
)
# In a message in place of a request: the ID of the request to cancel.
CANCEL = Tensor("cancel", "BYTES", (1,), optional=True)
IMAGES = (
    Tensor("start_image", "UINT8", (-1, -1, 3), optional=True),
    Tensor("end_image", "UINT8", (-1, -1, 3), optional=True),
)
# The denoiser's input for the images that a video continues: a mask and latents, concatenated.
INPAINT_LATENTS = Tensor("inpaint_latents", "FP32", (-1, -1, -1, -1))


def axis(dim: str) -> tuple[int, str]:
    """Split a dynamic dim into factor and axis: ``8*height`` is 8 and ``height``."""
    times, _, name = dim.rpartition("*")
    return int(times or 1), name


def prompt_tensor(role: str, encoder: Component, tensor: Tensor) -> str:
    """The name of an encoder's tensor for one prompt, such as ``negative_clip_l_pooled``."""
    return f"{role}{encoder.name}_{tensor.name}"


def pictures(kind: Tensor) -> tuple[Tensor, ...]:
    """The response tensors of a pipeline that returns pictures in the tensor ``kind``.

    None shares a name with a request tensor.
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
