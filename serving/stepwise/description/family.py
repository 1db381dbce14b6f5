"""A family of checkpoints as one literal: its components, tensors, limits and defaults.

Every tensor name, dtype and shape in an ONNX graph, a TensorRT profile, a ``config.pbtxt`` or a BLS
call is derived from one ``Family``. Where families differ in behaviour, the literal holds a
function: no code branches on a family's name.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from stepwise.description.fields import Array
from stepwise.description.settings import Settings
from stepwise.description.spec import Component, Range, Tensor

ROLES = ("", "negative_")

# One row's denoiser inputs in addition to latents and timestep, by name, without batch dim.
Conditioning = dict[str, Array]


@dataclass(frozen=True)
class Defaults:
    """The values of settings that a request leaves out.

    ``negative_prompt`` is None if an absent negative prompt differs from an empty one. A number is
    None if requests cannot set it.
    """

    steps: int
    guidance_scale: float
    sampler: str
    negative_prompt: str | None = ""
    num_images: int | None = 1
    frames: int | None = None


@dataclass(frozen=True)
class Limits:
    """The allowed settings of a request; ranges include both ends.

    Allowed sides are the checkpoint's native side times ``side_factors``. The longest deadline
    is also the default. ``pixels`` limits micro-conditioning. ``guidance_rescale`` and ``frames``
    apply only to videos.
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
    """The video settings of a family; video latents are (channels, frames, height, width).

    Frames with a side of more than ``tile`` pixels go through the autoencoder in tiles that begin
    ``tile_stride`` pixels apart. If there is an ``image_encoder``, it encodes the images that a
    video continues: the request tensors ``images``, of which the first is required.
    """

    tile: int
    tile_stride: int
    image_encoder: Component | None = None
    images: tuple[Tensor, ...] = ()


def nothing_shared(settings: Settings) -> Conditioning:
    """No shared conditioning: the default for ``Family.shared``."""
    return {}


@dataclass(frozen=True)
class Family:
    """A family of checkpoints and how it is served.

    ``ranges`` gives the sizes of each dynamic axis, except for latent sides, which depend on the
    checkpoint's native side. A denoiser call has at most ``max_rows`` rows. At most ``capacity``
    pictures run or wait on one server.

    ``native`` names the denoiser config's keys for the native height and width, in latents.
    ``largest_grid`` names its key for the largest number of patches per side; "" means no limit.
    Sides in pixels are multiples of ``side_multiple``; 0 means the multiple follows from the
    denoiser's patch size. ``schedule`` holds the values that the family's diffusers class adds to
    the scheduler config. ``buckets`` are the served heights and widths for a native side of 1024
    pixels; if empty, every side within the limits is served. ``zero_negative`` is the default for
    checkpoints that do not say whether an absent negative prompt becomes embeddings of zeros.

    ``conditioning(embeddings, role, settings)`` builds the denoiser inputs of one row from the text
    encoders' outputs, keyed by ``prompt_tensor``; ``role`` is one of ``ROLES``.
    ``shared(settings)`` builds the inputs that all rows of a call share. ``video`` is None for
    families that make pictures.
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
    # Left out of repr, which is part of cache keys and would contain their addresses.
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
        """The encoder of the images that videos continue, if the family has one."""
        return None if self.video is None else self.video.image_encoder

    @property
    def components(self) -> tuple[Component, ...]:
        """All graphs, in the order in which a request uses them."""
        images = () if self.image_encoder is None else (self.image_encoder,)
        return (*self.encoders, *images, self.denoiser, self.decoder)

    @property
    def makes_videos(self) -> bool:
        """Whether the family makes videos rather than pictures."""
        return self.video is not None

    def row_conditioning(
        self, embeddings: Mapping[str, Array], settings: Settings
    ) -> tuple[Conditioning, ...]:
        """The conditioning of each row that a picture takes in a denoiser call.

        Negative and positive if the guidance scale is above 1, else only positive.
        """
        roles = ("negative_", "") if settings.guidance_scale > 1 else ("",)
        return tuple(self.conditioning(embeddings, role, settings) for role in roles)

    def encoded_roles(self, settings: Settings) -> tuple[str, ...]:
        """The prompts that a request uses, of ``ROLES``: no negative one without guidance, nor one
        that is replaced by zeros.
        """
        return ROLES if settings.guidance_scale > 1 and not settings.zero_negative else ROLES[:1]

    def encodings(self) -> Iterator[tuple[str, Component]]:
        """Each (role, encoder) pair: a prompt and a text encoder that may encode it."""
        for role in ROLES:
            for encoder in self.encoders:
                yield role, encoder
