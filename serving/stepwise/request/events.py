"""The events of a running request, which ``denoise`` sends to ``decode``."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from stepwise.description.manifest import VideoLayout

Kind = Literal["progress", "preview", "result"]


@dataclass(frozen=True)
class Event:
    """One response: progress alone, a preview, or a finished picture.

    ``index`` is the picture's place among ``num_images``. Times are milliseconds in the queue and
    in denoising so far. ``mean_batch`` is the mean number of pictures per step. ``video`` is the
    layout for decoding video latents. ``request`` is the ID of the request, and ``member`` its peer
    and client, which have equal turns in decoding. A ``silent`` event gets
    no response: ``decode`` only checks whether the client is still there. In a request's last
    event, ``record`` is its entry for the request log.
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

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str | bytes) -> "Event":
        """The inverse of ``to_json``, for a line with a checked signature."""
        fields = json.loads(text)
        fields["notes"], fields["member"] = tuple(fields["notes"]), tuple(fields["member"])
        if fields["video"] is not None:
            fields["video"] = VideoLayout.from_fields(fields["video"])
        return Event(**fields)


def cancelling(request_id: str) -> str:
    """A message, sent in place of an event, that stops the decoding of a request."""
    return json.dumps({"cancel": request_id})


def cancelled(text: str | bytes) -> str | None:
    """The inverse of ``cancelling``; None for an event."""
    found: str | None = json.loads(text).get("cancel")
    return found
