"""Requests that wait for the text encoders. No threads, no clock."""

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

from stepwise.batching.active_requests import expired
from stepwise.batching.fair_queueing import Shares
from stepwise.batching.queue import aged, check_room
from stepwise.description.errors import RequestError
from stepwise.description.settings import Settings

Job = TypeVar("Job")


@dataclass(eq=False)
class _Entry(Generic[Job]):
    job: Job
    settings: Settings
    since: float
    tag: float


class Admission(Generic[Job]):
    """Decides which request is encoded next, by the order of ``Queue``.

    ``at_once`` requests are encoded at a time. At most ``capacity`` pictures wait, are encoded or
    are in the denoiser, so that no prompt is encoded for a queue that is full.
    """

    def __init__(self, capacity: int, at_once: int) -> None:
        self._capacity = capacity
        self._at_once = at_once
        self._shares = Shares()
        self._waiting: list[_Entry[Job]] = []
        self._encoded: list[_Entry[Job]] = []

    def __len__(self) -> int:
        return len(self._waiting) + len(self._encoded)

    def submit(self, job: Job, settings: Settings, occupied: int, now: float) -> None:
        """Add a request while ``occupied`` pictures are in the denoiser.

        Raises Unavailable if there is no room, and Expired if its deadline has passed.
        """
        here = sum(entry.settings.num_images for entry in (*self._waiting, *self._encoded))
        check_room(occupied + here, settings.num_images, self._capacity)
        if now >= settings.deadline:
            raise expired(settings, now)
        tag = self._shares.tag(settings.member, 1)
        self._waiting.append(_Entry(job, settings, now, tag))

    def take(self, now: float) -> Job | None:
        """The next request to encode, None if there is none or enough are encoded."""
        if not self._waiting or len(self._encoded) >= self._at_once:
            return None
        entry = min(self._waiting, key=lambda entry: self._rank(entry, now))
        self._waiting.remove(entry)
        self._encoded.append(entry)
        self._shares.admitted(entry.settings.member, 1)
        self._shares.served(
            [(entry.settings.member, 1)],
            [each.settings.member for each in (*self._waiting, *self._encoded)],
        )
        return entry.job

    def finish(self, job: Job) -> None:
        """Remove a request that is encoded."""
        self._encoded = [entry for entry in self._encoded if entry.job != job]

    def expired(self, now: float) -> list[tuple[Job, RequestError]]:
        """Remove the waiting requests whose deadlines have passed, and return each error."""
        late = [entry for entry in self._waiting if now >= entry.settings.deadline]
        self._waiting = [entry for entry in self._waiting if entry not in late]
        return [(entry.job, expired(entry.settings, now)) for entry in late]

    def waiting(self) -> list[Job]:
        """The requests that wait."""
        return [entry.job for entry in self._waiting]

    def drop(self, job: Job) -> bool:
        """Remove a request if it waits; false if it does not."""
        before = len(self._waiting)
        self._waiting = [entry for entry in self._waiting if entry.job != job]
        return len(self._waiting) < before

    @property
    def deadline(self) -> float:
        """The earliest deadline of a waiting request, infinity if none waits."""
        return min((entry.settings.deadline for entry in self._waiting), default=math.inf)

    def _rank(self, entry: _Entry[Job], now: float) -> tuple[int, tuple[float, float]]:
        priority = aged(entry.settings.priority, now - entry.since)
        return priority, self._shares.rank(entry.settings.member, entry.tag)
