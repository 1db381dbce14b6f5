"""What a running request tells its client, as it travels from ``denoise`` to ``decode``."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from stepwise.description.manifest import VideoLayout

Kind = Literal["progress", "preview", "result"]


@dataclass(frozen=True)
class Event:
    """One response: progress alone, a preview, or a finished picture.

    ``index`` is the picture's place among ``num_images``. Times are milliseconds: waiting in the
    queue, and denoising so far. ``mean_batch`` is how many pictures shared this one's steps.
    ``video`` is how to decode the latents that come with it, if they are a video's. ``request`` is
    the id of the request, and ``record`` what the log will say of it, in its last event.
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
    record: dict[str, Any] | None = None

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str | bytes) -> "Event":
        """The inverse of ``to_json``."""
        fields = json.loads(text)
        fields["notes"] = tuple(fields["notes"])
        if fields["video"] is not None:
            fields["video"] = VideoLayout.from_fields(fields["video"])
        return Event(**fields)


def cancelling(request_id: str) -> str:
    """What travels instead of an event to have a request's decoding stopped."""
    return json.dumps({"cancel": request_id})


def cancelled(text: str | bytes) -> str | None:
    """The inverse of ``cancelling``; None for an event."""
    found: str | None = json.loads(text).get("cancel")
    return found
