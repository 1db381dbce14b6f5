"""Who is denoised next. Pure: no thread, no clock."""

from collections import deque
from dataclasses import dataclass, field

from pipelines.inflight.request import Bucket, Picture, Request


@dataclass
class _Lane:
    """The pictures of one bucket: those under way, and those that wait in order of arrival."""

    running: list[Picture] = field(default_factory=list)
    waiting: deque[Picture] = field(default_factory=deque)

    def admit(self, slots: int) -> None:
        """Let waiting pictures join while they fit; nobody overtakes the first in line."""
        taken = sum(picture.slots for picture in self.running)
        while self.waiting and taken + self.waiting[0].slots <= slots:
            taken += self.waiting[0].slots
            self.running.append(self.waiting.popleft())


class Queue:
    """Pictures by bucket; buckets take turns, one denoiser call each.

    Within a bucket pictures run in order of arrival, as many as fit ``slots``, each until it is
    finished. So every picture is reached after finitely many steps.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        # Insertion order is the order of turns: the lane that ran last stands at the end.
        self._lanes: dict[Bucket, _Lane] = {}

    def __len__(self) -> int:
        return sum(len(lane.running) + len(lane.waiting) for lane in self._lanes.values())

    def submit(self, request: Request) -> None:
        """Line up the request's pictures."""
        lane = self._lanes.setdefault(request.bucket, _Lane())
        lane.waiting.extend(request.pictures())

    def requests(self) -> list[Request]:
        """Each request that has pictures here."""
        lanes = self._lanes.values()
        pictures = [p for lane in lanes for p in (*lane.running, *lane.waiting)]
        return list({id(picture.request): picture.request for picture in pictures}.values())

    def next_batch(self) -> list[Picture]:
        """The pictures of the next denoiser call, at most ``slots`` rows; empty if none wait."""
        if not self._lanes:
            return []
        bucket, lane = next(iter(self._lanes.items()))
        del self._lanes[bucket]
        self._lanes[bucket] = lane
        lane.admit(self._slots)
        return list(lane.running)

    def remove(self, pictures: list[Picture]) -> None:
        """Take out pictures that are finished or have failed."""
        gone = set(map(id, pictures))
        for bucket, lane in list(self._lanes.items()):
            lane.running = [picture for picture in lane.running if id(picture) not in gone]
            if not lane.running and not lane.waiting:
                del self._lanes[bucket]

    def remove_request(self, request: Request) -> None:
        """Take out all pictures of a request, under way or waiting."""
        for lane in self._lanes.values():
            lane.waiting = deque(p for p in lane.waiting if p.request is not request)
        self.remove(
            [p for lane in self._lanes.values() for p in lane.running if p.request is request]
        )
