"""A request's complete settings."""

from dataclasses import dataclass, field
from typing import Any

from stepwise.description.manifest import VideoLayout

# Height and width in pixels.
Size = tuple[int, int]

DEFAULT_PRIORITY = 1
# In a request: any seed. No picture has it, so that sending a picture's seed repeats the picture.
RANDOM_SEED = -1


@dataclass(frozen=True)
class Settings:
    """The validated settings of a request.

    ``height`` and ``width`` are pixels. ``latent_shape`` is (channels, height, width) for pictures
    and (channels, frames, height, width) for videos, which also have ``frames`` and a ``video``
    layout. Without ``progress`` there are no responses before the first preview or result. A
    denoiser call of this size has at most ``batch_cap`` rows. ``schedule`` is the checkpoint's
    scheduler config. ``time_ids`` is SDXL's micro-conditioning: original size, crop and target
    size, vertical before horizontal. ``clip_skip`` counts the layers of CLIP that the prompt skips
    in addition to the last. With ``zero_negative`` there is no negative prompt, and its embeddings
    are zeros. ``guidance_rescale`` is the share of the guided prediction that is rescaled to the
    positive one's deviation. ``arrived`` and ``deadline`` are seconds on the machine's monotonic
    clock. Priority 0 is the highest. ``client`` is a name that the request chose, ``peer`` the one
    that a trusted front gave its sender, "" without such a front. ``asked`` is the original
    request, for the log.
    """

    steps: int
    guidance_scale: float
    sampler: str
    seed: int
    num_images: int
    height: int
    width: int
    latent_shape: tuple[int, ...]
    time_ids: tuple[int, ...]
    clip_skip: int
    zero_negative: bool
    batch_cap: int
    schedule: dict[str, Any]
    arrived: float
    deadline: float
    guidance_rescale: float = 0.0
    frames: int = 1
    video: VideoLayout | None = None
    progress: bool = True
    preview_every: int = 0
    priority: int = DEFAULT_PRIORITY
    client: str = ""
    peer: str = ""
    asked: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def resolution(self) -> str:
        """The size in the form used by metrics, logs and batch caps."""
        return resolution((self.height, self.width), self.frames if self.video else None)

    @property
    def member(self) -> tuple[str, str]:
        """The peer and the client, which have equal shares of the denoiser."""
        return self.peer, self.client


def words(size: Size) -> str:
    """A size in pixels as ``WIDTHxHEIGHT``."""
    height, width = size
    return f"{width}x{height}"


def resolution(size: Size, frames: int | None) -> str:
    """A size as ``WIDTHxHEIGHT``, or ``FRAMESxWIDTHxHEIGHT`` for a video.

    Metrics, logs and batch caps use this form.
    """
    return words(size) if frames is None else f"{frames}x{words(size)}"
