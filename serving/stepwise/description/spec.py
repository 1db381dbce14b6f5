"""The vocabulary in which a pipeline is described: tensors, components, limits, wiring.

Every tensor name, dtype and shape that appears in an ONNX graph, a TensorRT profile, a
``config.pbtxt``, an ensemble or a BLS call is derived from one ``Pipeline`` literal.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

DType = Literal["FP32", "FP16", "INT32", "INT64", "UINT8", "BYTES"]
# A multiple of a dynamic axis is written ``8*height``.
Dim = int | str
ROLES = ("", "negative_")


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
    it is a text encoder; the first input of one is token ids, and further ones are the tokens'
    attention mask or named after settings. ``max_batch`` is how many requests Triton may batch for
    it; 0 leaves batching to the caller, who then passes any batch. An ``optional`` one may be
    missing. ``format`` is raised by whoever changes what is written of it, its graph or its config.
    """

    name: str
    subfolder: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch: int = 0
    tokenizer: str = ""
    optional: bool = False
    format: int = 1


@dataclass(frozen=True)
class Defaults:
    """What a request gets for the settings that it leaves out.

    ``negative_prompt`` is None where an absent one is not the same as an empty one, and a number
    is None where a request cannot ask for it.
    """

    steps: int
    guidance_scale: float
    sampler: str
    negative_prompt: str | None = ""
    num_images: int | None = 1
    frames: int | None = None


@dataclass(frozen=True)
class Limits:
    """The settings that a request may ask for; both ends included.

    Sides are given by the checkpoint's own native side: ``side_factors`` multiplies it. The
    longest deadline is that of requests that name none. ``pixels`` are those of micro-conditioning,
    ``guidance_rescale`` and ``frames`` are of clips alone.
    """

    steps: tuple[int, int]
    guidance_scale: tuple[float, float]
    num_images: tuple[int, int] | None
    side_factors: tuple[float, float]
    prompt_bytes: int
    preview_every: tuple[int, int] = (0, 1000)
    deadline_ms: tuple[int, int] = (1, 600_000)
    priority: tuple[int, int] = (0, 2)
    client_bytes: int = 64
    pixels: tuple[int, int] = (0, 16384)
    frames: tuple[int, int] | None = None
    guidance_rescale: tuple[float, float] | None = None


@dataclass(frozen=True)
class Pipeline:
    """A family of checkpoints and how it is served.

    ``ranges`` gives each dynamic axis its sizes; latent sides are in units of the native side
    and therefore not among them. ``slots`` is how many rows one denoiser call may have;
    ``capacity`` is how many pictures may run or wait on one server.

    Sides in pixels are multiples of ``side_multiple``; 0 is for those that the denoiser's patches
    have. ``schedule`` is what the pipeline's diffusers class tells its scheduler beside the
    checkpoint's config. ``buckets`` are the heights and widths that are served, for a native side
    of 1024 pixels; without any, every side within the limits is. ``zero_negative`` is whether an
    absent negative prompt becomes embeddings of zeros in a checkpoint that does not say.

    A pipeline of clips has latents (channels, frames, height, width); ``tile`` is how many pixels a
    side of a frame may have before the autoencoder sees it in tiles, and how far apart those begin.
    With an ``image_encoder`` clips continue images, which it encodes.
    """

    family: str
    diffusers_class: str
    encoders: tuple[Component, ...]
    denoiser: Component
    decoder: Component
    request: tuple[Tensor, ...]
    response: tuple[Tensor, ...]
    defaults: Defaults
    limits: Limits
    ranges: Mapping[str, Range]
    slots: int
    capacity: int = 256
    side_multiple: int = 0
    buckets: tuple[tuple[int, int], ...] = ()
    zero_negative: bool = False
    schedule: Mapping[str, float] = field(default_factory=dict)
    image_encoder: Component | None = None
    tile: tuple[int, int] = (0, 0)

    @property
    def components(self) -> tuple[Component, ...]:
        """All graphs, in the order of a request's life."""
        images = () if self.image_encoder is None else (self.image_encoder,)
        return (*self.encoders, *images, self.denoiser, self.decoder)

    @property
    def latents(self) -> Tensor:
        """The latents of one picture or clip, as they travel between the models."""
        return Tensor("latents", "FP32", (-1,) * (len(self.denoiser.inputs[0].dims) - 1))

    @property
    def makes_clips(self) -> bool:
        """Whether latents have frames."""
        return "frames" in self.denoiser.inputs[0].dims

    @property
    def encoder_inputs(self) -> tuple[Tensor, ...]:
        """What leaves ``prepare`` for the encoders, for either prompt: token ids first."""
        return tuple(
            Tensor(ensemble_name(role, encoder, tensor), tensor.dtype, (1, *tensor.dims[1:]))
            for role, encoder in self.encodings()
            for tensor in encoder.inputs
        )

    @property
    def embeddings(self) -> tuple[Tensor, ...]:
        """Encoder outputs as they reach ``denoise``, for either prompt."""
        return tuple(
            Tensor(ensemble_name(role, encoder, output), output.dtype, (1, *output.dims[1:]))
            for role, encoder in self.encodings()
            for output in encoder.outputs
        )

    @property
    def denoiser_feeds(self) -> tuple[Tensor, ...]:
        """What reaches ``denoise`` beside the settings: embeddings, and encoded images."""
        return (*self.embeddings, *([INPAINT_LATENTS] if self.image_encoder else []))

    def encodings(self) -> Iterator[tuple[str, Component]]:
        """Each (role, encoder): the steps of the ensemble that run a text encoder."""
        for role in ROLES:
            for encoder in self.encoders:
                yield role, encoder


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
# What the denoiser is told of the images that a clip continues: a mask and latents, side by side.
INPAINT_LATENTS = Tensor("inpaint_latents", "FP32", (-1, -1, -1, -1))
EVENT = Tensor("event", "BYTES", (1,))
# The id of a request whose clip has left ``decode``: only then is there room for another.
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
