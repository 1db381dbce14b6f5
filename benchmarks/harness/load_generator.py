"""Sends requests to a server, in a closed loop or at given times, from one asyncio process.

The generator shares its cores with the server, so it does little work: it uses one thread and
computes figures after the last response.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.harness.workload import Ask
from stepwise.client import AsyncClient, ClientError, Event

Send = Callable[[Ask], AsyncIterator[Event]]


@dataclass(frozen=True)
class Mark:
    """One event: ``step`` was completed after ``at`` seconds."""

    at: float
    step: int
    mean_batch: float
    queued_ms: float


@dataclass(frozen=True)
class Outcome:
    """The outcome of one request; times are seconds since the run began.

    ``scheduled`` is the planned send time. Latency counts from there, so that a slow server or
    generator cannot hide its delay. ``error`` is empty if the picture ``image`` arrived.
    """

    ask: Ask
    scheduled: float
    sent: float
    done: float
    marks: tuple[Mark, ...]
    error: str
    image: npt.NDArray[np.uint8] | None

    @property
    def latency(self) -> float:
        """Seconds from the scheduled arrival to the last response."""
        return self.done - self.scheduled

    @property
    def picture(self) -> npt.NDArray[np.uint8]:
        """The picture of a request that must have one."""
        assert self.image is not None, f"{self.ask} ended with {self.error}"
        return self.image


def sender(client: AsyncClient, name: str) -> Send:
    """A function that sends a request to the pipeline ``name`` of the client's server."""
    return lambda ask: client.generate(name, ask.prompt, **ask.settings)


def elapsed(outcomes: Sequence[Outcome]) -> float:
    """Seconds until the last response."""
    return max(outcome.done for outcome in outcomes)


def poisson(rate: float, count: int, seed: int) -> list[float]:
    """``count`` arrival times in seconds of a Poisson process with ``rate`` arrivals a second."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, count)
    times: list[float] = np.cumsum(gaps).tolist()
    return times


def lasting(asks: Sequence[Ask], seconds: float) -> Iterator[Ask]:
    """Repeat the requests until ``seconds`` after the first one."""
    end = time.perf_counter() + seconds
    for ask in itertools.cycle(asks):
        if time.perf_counter() >= end:
            return
        yield ask


async def closed_loop(send: Send, asks: Iterable[Ask], lanes: int) -> list[Outcome]:
    """Send all, ``lanes`` at a time: a lane sends its next request after the last response."""
    origin, waiting = time.perf_counter(), iter(asks)

    async def lane() -> list[Outcome]:
        return [await _one(send, ask, origin, time.perf_counter() - origin) for ask in waiting]

    done = await asyncio.gather(*(lane() for _ in range(lanes)))
    return sorted(itertools.chain(*done), key=lambda outcome: outcome.sent)


async def open_loop(send: Send, asks: Sequence[Ask], arrivals: Sequence[float]) -> list[Outcome]:
    """Send each request at its arrival time, without waiting for earlier ones."""
    origin = time.perf_counter()

    async def arrive(ask: Ask, scheduled: float) -> Outcome:
        await asyncio.sleep(max(0.0, origin + scheduled - time.perf_counter()))
        return await _one(send, ask, origin, scheduled)

    pairs = zip(asks, arrivals, strict=True)
    return list(await asyncio.gather(*(arrive(ask, scheduled) for ask, scheduled in pairs)))


async def _one(send: Send, ask: Ask, origin: float, scheduled: float) -> Outcome:
    marks, error, image, sent = [], "", None, time.perf_counter() - origin
    try:
        async for event in send(ask):
            image = event.image
            if event.kind != "preview":
                now = time.perf_counter() - origin
                marks.append(Mark(now, event.step, event.mean_batch, event.queued_ms))
    except ClientError as failure:
        error = type(failure).__name__
    done = time.perf_counter() - origin
    return Outcome(ask, scheduled, sent, done, tuple(marks), error, image)
