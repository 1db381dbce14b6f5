"""Finding the requests whose callers are gone, without holding up the batch."""

from collections.abc import Callable, Iterator, Sequence

from pipelines.inflight.request import Request

Clock = Callable[[], float]
# Asking takes Triton a fifth of a millisecond: nothing beside a large model's step, and as much
# as a small model's step for a batch of them.
SHARE_OF_STEP = 0.02


class HangUps:
    """Asks request after request, in turn, for as long as a fiftieth of a step and at least one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._asked = 0

    def find(self, requests: Sequence[Request], step_seconds: float) -> Iterator[Request]:
        """Those of ``requests`` that were asked and have hung up."""
        until = self._clock() + SHARE_OF_STEP * step_seconds
        for _ in requests:
            self._asked = (self._asked + 1) % len(requests)
            if requests[self._asked].hung_up():
                yield requests[self._asked]
            if self._clock() >= until:
                return
