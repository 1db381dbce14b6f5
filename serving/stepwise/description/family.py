"""A family of checkpoints in one literal: what it is made of and how it is served.

Every tensor name, dtype and shape that appears in an ONNX graph, a TensorRT profile, a
``config.pbtxt``, an ensemble or a BLS call is derived from one ``Family``. What differs between
families beyond data is a function of the literal: nothing asks for a family's name.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from stepwise.description.fields import Array
from stepwise.description.settings import Settings
from stepwise.description.spec import INPAINT_LATENTS, Component, Range, Tensor, ensemble_name

ROLES = ("", "negative_")

# What one row of the batch feeds the denoiser besides latents and timestep, without batch dim.
Conditioning = dict[str, Array]


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
    ``guidance_rescale`` and ``frames`` are of videos alone.
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
class Video:
    """What a family has that makes videos, whose latents are (channels, frames, height, width).

    Frames with a side of more than ``tile`` pixels go through the autoencoder in tiles that begin
    ``tile_stride`` pixels apart. With an ``image_encoder`` videos continue images, which it
    encodes: the request tensors ``images``, of which the first is required.
    """

    tile: int
    tile_stride: int
    image_encoder: Component | None = None
    images: tuple[Tensor, ...] = ()


def nothing_shared(settings: Settings) -> Conditioning:
    """What a denoiser is given once for a call, if that is nothing."""
    return {}


@dataclass(frozen=True)
class Family:
    """A family of checkpoints and how it is served.

    ``ranges`` gives each dynamic axis its sizes; latent sides are in units of the native side
    and therefore not among them. ``max_rows`` is how many rows one denoiser call may have;
    ``capacity`` is how many pictures may run or wait on one server.

    ``native`` are the keys of the denoiser's config for the native height and width, in latents,
    ``largest_grid`` that for how many patches a side may have, "" if there is no limit.
    Sides in pixels are multiples of ``side_multiple``; 0 is for those that the denoiser's patches
    have. ``schedule`` is what the family's diffusers class adds to the scheduler's config.
    ``buckets`` are the heights and widths that are served, for a native side of 1024 pixels;
    without any, every side within the limits is. ``zero_negative`` is whether an absent negative
    prompt becomes embeddings of zeros in a checkpoint that does not say.

    ``conditioning(embeddings, role, settings)`` is what one row of the batch feeds the denoiser,
    from the text encoders' outputs by ``ensemble_name``; ``role`` is one of ``ROLES``.
    ``shared(settings)`` is what all rows of a call have in common. ``video`` is of families that
    make videos.
    """

    name: str
    diffusers_class: str
    encoders: tuple[Component, ...]
    denoiser: Component
    decoder: Component
    request: tuple[Tensor, ...]
    response: tuple[Tensor, ...]
    defaults: Defaults
    limits: Limits
    ranges: Mapping[str, Range]
    max_rows: int
    # Without their addresses, since a family's text is part of cache keys.
    conditioning: Callable[[Mapping[str, Array], str, Settings], Conditioning] = field(repr=False)
    shared: Callable[[Settings], Conditioning] = field(default=nothing_shared, repr=False)
    video: Video | None = None
    capacity: int = 256
    native: tuple[str, str] = ("sample_size", "sample_size")
    largest_grid: str = ""
    side_multiple: int = 0
    buckets: tuple[tuple[int, int], ...] = ()
    zero_negative: bool = False
    schedule: Mapping[str, float] = field(default_factory=dict)

    @property
    def image_encoder(self) -> Component | None:
        """What encodes the images that videos continue, if they do."""
        return None if self.video is None else self.video.image_encoder

    @property
    def components(self) -> tuple[Component, ...]:
        """All graphs, in the order of a request's life."""
        images = () if self.image_encoder is None else (self.image_encoder,)
        return (*self.encoders, *images, self.denoiser, self.decoder)

    @property
    def latents(self) -> Tensor:
        """The latents of one picture or video, as they travel between the models."""
        return Tensor("latents", "FP32", (-1,) * (len(self.denoiser.inputs[0].dims) - 1))

    @property
    def makes_videos(self) -> bool:
        """Whether it makes videos, not pictures."""
        return self.video is not None

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
        """What reaches ``denoise`` besides the settings: embeddings, and encoded images."""
        return (*self.embeddings, *([INPAINT_LATENTS] if self.image_encoder else []))

    def row_conditioning(
        self, embeddings: Mapping[str, Array], settings: Settings
    ) -> tuple[Conditioning, ...]:
        """What each row that a picture takes in a denoiser call is fed.

        Negative and positive with guidance above 1, the positive alone without.
        """
        roles = ("negative_", "") if settings.guidance_scale > 1 else ("",)
        return tuple(self.conditioning(embeddings, role, settings) for role in roles)

    def encodings(self) -> Iterator[tuple[str, Component]]:
        """Each (role, encoder): the steps of the ensemble that run a text encoder."""
        for role in ROLES:
            for encoder in self.encoders:
                yield role, encoder
