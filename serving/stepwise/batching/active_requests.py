"""Tracks active requests by ID, from arrival to their one final response. No threads, no clock."""

from dataclasses import dataclass

from stepwise.batching.request import Picture, Request, Summary
from stepwise.description.errors import Cancelled, Expired, InvalidRequest, RequestError
from stepwise.description.settings import Settings

# A cancellation may arrive before its request, which passes the text encoders first.
REMEMBER_SECONDS = 60.0
REMEMBER_AT_MOST = 10_000


@dataclass
class _Entry:
    request: Request
    left: int
    started: float | None = None
    steps: int = 0
    batch_sum: int = 0
    cancelled: bool = False
    released: bool = False

    def summary(self, outcome: str, now: float) -> Summary:
        arrived = self.request.settings.arrived
        started = now if self.started is None else self.started
        return Summary(
            outcome=outcome,
            queued_ms=1000 * (started - arrived),
            denoising_ms=1000 * (now - started),
            mean_batch=self.batch_sum / max(self.steps, 1),
        )


class ActiveRequests:
    """Active requests by ID. Whichever code path removes a request sends its final response."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._cancelled: dict[str, float] = {}

    def __contains__(self, request: Request) -> bool:
        entry = self._entries.get(request.id)
        return entry is not None and entry.request is request

    def check(self, request: Request, now: float) -> None:
        """Raise the error of a request that may not enter.

        Raises InvalidRequest if an active request has the same ID, Cancelled if its cancellation
        came first, and Expired if its deadline has passed.
        """
        if request.id in self._entries:
            raise id_in_use(request.id)
        if self._cancelled.pop(request.id, None) is not None:
            raise _cancelled()
        if now >= request.settings.deadline:
            raise expired(request.settings, now)

    def enter(self, request: Request) -> None:
        """Add a request that ``check`` accepted."""
        self._entries[request.id] = _Entry(request, request.settings.num_images)

    def stop(self, request_id: str) -> bool:
        """Mark a request as cancelled; false if it is not active."""
        entry = self._entries.get(request_id)
        if entry is not None:
            entry.cancelled = True
        return entry is not None

    def cancel(self, request_id: str, now: float) -> None:
        """Mark a request as cancelled, or remember its ID for a while if it is not active."""
        if self.stop(request_id):
            return
        recent = {k: t for k, t in self._cancelled.items() if now - t < REMEMBER_SECONDS}
        while len(recent) >= REMEMBER_AT_MOST:
            del recent[next(iter(recent))]
        self._cancelled = {**recent, request_id: now}

    def release(self, request_id: str) -> bool:
        """Mark a request as one that nobody will decode; false if it is not active."""
        entry = self._entries.get(request_id)
        if entry is not None:
            entry.released = True
        return entry is not None

    def released(self, request: Request) -> bool:
        """Whether nobody will decode an active request."""
        return self._entries[request.id].released

    def stopped(self, now: float) -> list[tuple[Request, RequestError]]:
        """The cancelled and expired requests, each with its error."""
        found: list[tuple[Request, RequestError]] = []
        for entry in self._entries.values():
            request = entry.request
            if entry.cancelled:
                found.append((request, _cancelled()))
            elif now >= request.settings.deadline:
                found.append((request, expired(request.settings, now)))
        return found

    def present(self) -> list[Request]:
        """The active requests, in order of arrival."""
        return [entry.request for entry in self._entries.values()]

    def stepped(self, pictures: list[Picture], now: float) -> None:
        """Record that these pictures shared a step that began at ``now``."""
        for picture in pictures:
            entry = self._entries[picture.request.id]
            entry.started = now if entry.started is None else entry.started
            entry.steps += 1
            entry.batch_sum += len(pictures)

    def finished(self, request: Request) -> bool:
        """Record that one of its pictures is finished; true if it was the last."""
        entry = self._entries[request.id]
        entry.left -= 1
        return entry.left == 0

    def leave(self, request: Request, outcome: str, now: float) -> Summary | None:
        """Remove a request; None if it is not active, so it already has its final response."""
        entry = self._entries.pop(request.id, None)
        return None if entry is None else entry.summary(outcome, now)


def id_in_use(request_id: str) -> InvalidRequest:
    """The error for a request with the ID of an active request."""
    return InvalidRequest(
        f"request id: got {request_id!r}, which an active request has; send a unique ID"
    )


def _cancelled() -> Cancelled:
    return Cancelled("the request was cancelled")


def expired(settings: Settings, now: float) -> Expired:
    """The error for a request past its deadline."""
    waited = 1000 * (now - settings.arrived)
    allowed = 1000 * (settings.deadline - settings.arrived)
    return Expired(
        f"deadline_ms: no picture within {allowed:.0f} ms ({waited:.0f} ms have passed); allow "
        "more time, ask for fewer steps or try again when the server is less busy"
    )
