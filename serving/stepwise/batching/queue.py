"""Chooses the pictures of the next denoiser call. No threads, no clock."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from stepwise.batching.fair_queueing import Shares
from stepwise.batching.request import Bucket, Picture, Request
from stepwise.description.errors import Unavailable

# A waiting picture gains one priority level per interval, so that none waits forever.
AGEING_SECONDS = 30.0
# Denoiser calls per round for a bucket, by the highest priority that runs in it.
CALLS_PER_ROUND = (4, 2, 1)


def aged(priority: int, waited: float) -> int:
    """The priority of a picture that has waited for ``waited`` seconds."""
    return max(priority - int(waited // AGEING_SECONDS), 0)


def check_room(there: int, more: int, capacity: int) -> None:
    """Raise Unavailable if ``more`` pictures do not fit next to those that are ``there``."""
    if there + more > capacity:
        raise Unavailable(
            f"the queue is full: {there} pictures run or wait, {more} more were requested and "
            f"{capacity} are allowed; try again later or use another server"
        )


@dataclass
class _Waiting:
    """A waiting picture; ``tag`` orders pictures of the same priority."""

    picture: Picture
    since: float
    tag: float

    def priority(self, now: float) -> int:
        """The priority, which rises with waiting; 0 is the highest."""
        return aged(self.picture.request.settings.priority, now - self.since)


@dataclass
class _Lane:
    """The pictures of one bucket; its next denoiser call is at ``due``, in rounds."""

    due: float
    running: list[Picture] = field(default_factory=list)
    waiting: list[_Waiting] = field(default_factory=list)

    def admit(self, now: float, shares: Shares) -> None:
        """Admit pictures in order while they fit; none may skip ahead of a larger one.

        Higher priorities come first, and then the lowest rank of ``shares``.
        """
        taken = sum(picture.num_rows for picture in self.running)
        while self.waiting:
            first = min(
                self.waiting,
                key=lambda entry: (
                    entry.priority(now),
                    shares.rank(entry.picture.request.settings.member, entry.tag),
                ),
            )
            settings, rows = first.picture.request.settings, first.picture.num_rows
            if self.running and taken + rows > settings.batch_cap:
                return
            taken += rows
            shares.admitted(settings.member, first.picture.work)
            self.waiting.remove(first)
            self.running.append(first.picture)


class Queue:
    """Pictures by bucket, at most ``capacity`` of them.

    Buckets take turns, one denoiser call each. A bucket that runs a high-priority request gets more
    turns; a video bucket gets fewer turns, in proportion to its longer calls. Within a bucket, as
    many pictures as fit the batch cap run until they are finished. Waiting pictures are ordered by
    priority, which rises with waiting, and then by fair queueing, which gives peers, and the
    clients of each peer, equal shares. So every picture runs after finitely many steps.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lanes: dict[Bucket, _Lane] = {}
        self._shares = Shares()
        self._now_due = 0.0

    def __len__(self) -> int:
        return sum(len(lane.running) + len(lane.waiting) for lane in self._lanes.values())

    def running(self) -> Iterator[Picture]:
        """The pictures that have been admitted to a batch."""
        return (picture for lane in self._lanes.values() for picture in lane.running)

    def waiting(self) -> Iterator[Picture]:
        """The pictures that have not been admitted yet."""
        return (entry.picture for lane in self._lanes.values() for entry in lane.waiting)

    def check(self, request: Request, held: int) -> None:
        """Raise Unavailable if the request's pictures do not fit; ``held`` ones also take room."""
        check_room(len(self) + held, request.settings.num_images, self._capacity)

    def submit(self, request: Request, now: float) -> None:
        """Add the request's pictures to its bucket."""
        # Due after the current bucket, so that new buckets cannot keep an old one waiting.
        due = self._now_due + request.length / CALLS_PER_ROUND[request.settings.priority]
        # A request that raises leaves nothing behind.
        entries = [
            _Waiting(picture, now, self._shares.tag(request.settings.member, picture.work))
            for picture in request.pictures(now)
        ]
        self._lanes.setdefault(request.bucket, _Lane(due)).waiting.extend(entries)

    def next_batch(self, now: float) -> list[Picture]:
        """The pictures of the next denoiser call, all of one bucket; empty if there are none."""
        if not self._lanes:
            return []
        lane = min(self._lanes.values(), key=lambda lane: lane.due)
        lane.admit(now, self._shares)
        self._now_due = lane.due
        length = lane.running[0].request.length
        lane.due += length / CALLS_PER_ROUND[min(p.request.settings.priority for p in lane.running)]
        self._shares.served(
            [(p.request.settings.member, length * p.num_rows) for p in lane.running],
            [p.request.settings.member for p in (*self.running(), *self.waiting())],
        )
        return list(lane.running)

    def remove(self, pictures: Iterable[Picture]) -> None:
        """Remove running or waiting pictures."""
        gone = set(map(id, pictures))
        for bucket, lane in list(self._lanes.items()):
            lane.running = [picture for picture in lane.running if id(picture) not in gone]
            lane.waiting = [entry for entry in lane.waiting if id(entry.picture) not in gone]
            if not lane.running and not lane.waiting:
                del self._lanes[bucket]

    def remove_request(self, request: Request) -> None:
        """Remove all pictures of a request."""
        everyone = (*self.running(), *self.waiting())
        self.remove([picture for picture in everyone if picture.request is request])
