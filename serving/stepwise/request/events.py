"""The events of a running request, from the denoiser to the decoder."""

from dataclasses import dataclass
from typing import Any, Literal

from stepwise.description.manifest import VideoLayout

Kind = Literal["progress", "preview", "result"]


@dataclass(frozen=True)
class Event:
    """One response: progress alone, a preview, or a finished picture.

    ``index`` is the picture's place among ``num_images``. Times are milliseconds in the queue and
    in denoising so far. ``mean_batch`` is the mean number of pictures per step. ``video`` is the
    layout for decoding video latents. ``request`` is the ID of the request, and ``member`` its peer
    and client, which have equal turns in decoding. A ``silent`` event gets no response: it only
    checks whether the client is still there. In a request's last event, ``record`` is its entry for
    the request log.
    """

    kind: Kind
    index: int
    step: int
    steps: int
    seed: int
    queued_ms: float
    denoising_ms: float
    mean_batch: float
    notes: tuple[str, ...]
    video: VideoLayout | None = None
    request: str = ""
    member: tuple[str, str] = ("", "")
    silent: bool = False
    record: dict[str, Any] | None = None
