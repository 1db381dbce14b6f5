"""A request's settings, complete, as they are carried between models: one line of JSON."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from stepwise.description.errors import InvalidRequest
from stepwise.description.manifest import VideoLayout

# Height and width in pixels.
Size = tuple[int, int]

DEFAULT_PRIORITY = 1


@dataclass(frozen=True)
class Settings:
    """What travels behind ``prepare`` beside the embeddings.

    ``height`` and ``width`` are pixels, ``latent_shape`` is (channels, height, width) of the
    latents; ``batch_cap`` is how many rows a denoiser call of this size may have; ``schedule`` is
    the checkpoint's scheduler config. ``time_ids`` are what SDXL is told of a picture beside its
    prompt: original size, crop and target size, vertical before horizontal. ``clip_skip`` counts
    the layers of CLIP that the prompt goes without beside the last. With ``zero_negative`` there
    is no negative prompt, and its embeddings are zeros. Videos have ``frames``, a ``video`` layout
    and latents (channels, frames, height, width). ``guidance_rescale`` is how much of the
    prediction's own deviation guidance keeps. ``arrived`` and ``deadline`` are seconds on
    the machine's monotonic clock. ``priority`` is 0 for the highest. ``asked`` is the request as it
    came, for the log.
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
    preview_every: int = 0
    priority: int = DEFAULT_PRIORITY
    client: str = ""
    asked: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def resolution(self) -> str:
        """The size as metrics, logs and batch caps have it."""
        return resolution((self.height, self.width), self.frames if self.video else None)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str | bytes) -> "Settings":
        """The inverse of ``to_json``; InvalidRequest if ``text`` is not such a line."""
        try:
            fields = json.loads(text)
            fields["latent_shape"] = tuple(fields["latent_shape"])
            fields["time_ids"] = tuple(fields["time_ids"])
            fields["notes"] = tuple(fields["notes"])
            if fields["video"] is not None:
                fields["video"] = VideoLayout.from_fields(fields["video"])
            return Settings(**fields)
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidRequest(
                f"settings: got {text[:80]!r}, which is not what prepare writes ({error}); "
                "send requests to the ensemble"
            ) from error


def words(size: Size) -> str:
    """A size as people write those of pictures, width first."""
    height, width = size
    return f"{width}x{height}"


def resolution(size: Size, frames: int | None) -> str:
    """A size as requests, metrics, logs and batch caps have it: width x height, after the frames
    of a video.
    """
    return words(size) if frames is None else f"{frames}x{words(size)}"
