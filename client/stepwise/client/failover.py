"""Selects the server for a call, moves on to the next one, and raises the client's errors."""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import grpc

from stepwise.client.connection import Server, headers
from stepwise.client.errors import (
    Cancelled,
    ClientError,
    Lost,
    NotServed,
    RequestFailed,
    ServerUnavailable,
    TimedOut,
    of_status,
    of_text,
)
from stepwise.client.events import Event, parse
from stepwise.client.protocol import Request

# Seconds: the longest deadline of a server, 24 hours for a video, and an hour for decoding. Dead
# connections and pictures that take too long end earlier, by pings and by the server's deadline.
TIMEOUT = 25 * 60 * 60.0
# Seconds in which a lost server may come back, and between two attempts to reach it.
RECOVERY = 120.0
_PAUSE = 0.25
# In gRPC's text for a connection that it closed because no reply to a ping came.
_NO_REPLY = ("keepalive watchdog timeout", "keepalive timeout", "ping timeout")


class Servers:
    """The servers of a client, used round-robin: each request starts at the next one."""

    def __init__(
        self, urls: str | Sequence[str], api: Any, given: Mapping[str, str] | None = None
    ) -> None:
        listed, sent = urls.split(",") if isinstance(urls, str) else urls, headers(given)
        self.all = [Server(url.strip(), api, sent) for url in listed]
        self._next = itertools.count()

    def round_robin(self) -> list[Server]:
        """All servers, the next one first."""
        first = next(self._next) % len(self.all)
        return self.all[first:] + self.all[:first]

    def require_open(self) -> None:
        """Raise ClientError once the servers are closed."""
        for server in self.all:
            server.require_open()


class Attempts:
    """One call, tried on one server after another.

    ``for server in attempts: with attempts.on(server): …; return``, and ``refusal()`` after it. The
    call moves on if a server cannot be reached, does not serve the pipeline, is stopping or is
    full.
    """

    def __init__(self, servers: Sequence[Server], timeout: float | None) -> None:
        self.timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._left = list(servers)
        self._refusals: list[ServerUnavailable] = []
        self._server: Server | None = None
        self._cancelled = False

    def __iter__(self) -> Iterator[Server]:
        """The next server to try, until all have refused."""
        while self._left:
            yield self._left[0]

    @property
    def seconds_left(self) -> float | None:
        """Seconds left of the timeout; None without a timeout."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0)

    @contextmanager
    def on(self, server: Server) -> Iterator[None]:
        """Convert the body's gRPC errors; keep one after which the next server may be tried."""
        self._server = server
        try:
            if self._cancelled:
                raise Cancelled("cancelled before it was started")
            yield
        except ServerUnavailable as error:
            self._move_on(error)
        except grpc.RpcError as error:
            if server.closed:
                raise Cancelled("the client was closed") from error
            typed = of_status(error, server.url)
            if isinstance(typed, TimedOut):
                raise self._timed_out() from error
            if not isinstance(typed, ServerUnavailable):
                raise typed from error
            self._move_on(typed)
        finally:
            self._server = None

    def cancel(self) -> Server | None:
        """Prevent further attempts. Returns the server that has the call now, to notify it."""
        self._cancelled = True
        return self._server

    @property
    def not_served(self) -> bool:
        """Whether every server answered that it does not serve the pipeline."""
        return bool(self._refusals) and all(isinstance(e, NotServed) for e in self._refusals)

    def refusal(self) -> ServerUnavailable:
        """The error that says why no server took the call."""
        if len(self._refusals) == 1:
            return self._refusals[0]
        return ServerUnavailable("\n  ".join(["no server took it:", *map(str, self._refusals)]))

    def _move_on(self, error: ServerUnavailable) -> None:
        """Choose the next server after a refusal."""
        self._refusals.append(error)
        self._left.pop(0)

    def _timed_out(self) -> TimedOut:
        return TimedOut(
            f"no complete answer within {self.timeout:g} s; the server may be busy: "
            "allow more time or ask for fewer steps"
        )


class RequestAttempts(Attempts):
    """The attempts to get one request answered.

    If a server is lost while it works on the request, the request is sent once more, with the seed
    of the first attempt: to the next server or, for ``RECOVERY`` seconds, to one that comes back.
    Results that the caller has are not repeated.
    """

    def __init__(self, servers: Sequence[Server], timeout: float | None, request: Request) -> None:
        super().__init__(servers, timeout)
        # As the current attempt sends it.
        self.request = request
        self._servers = list(servers)
        self._sent = self._begun = self._complete = False
        self._last: Event | None = None
        # The results that the caller has: pictures, or the first frames of slices.
        self._results: set[int] = set()
        # A note on the first attempt, if it was lost, and the time at which to give up.
        self._lost = ""
        self._until = 0.0

    @property
    def pause(self) -> float:
        """Seconds to wait before the next attempt."""
        return _PAUSE if self._lost and self._refusals else 0.0

    def send(self, server: Server, config: Any) -> Any:
        """Start the request's stream; ``config`` is that of its pipeline."""
        message = self.request.message(config)
        self._sent, self._begun = True, False
        return server.call("ModelStreamInfer", iter([message]), self.seconds_left)

    def event(self, server: Server, response: Any) -> Event | None:
        """The event in a ``ModelStreamInferResponse``; raises the error in it.

        None for a result that the caller has from a lost attempt.
        """
        if response.error_message:
            raise of_text(response.error_message, server.url)
        event = self._last = parse(response.infer_response)
        self._begun = True
        if event.kind == "result":
            self._complete = True
            if event.index in self._results:
                return None
            self._results.add(event.index)
        return replace(event, notes=(*event.notes, self._lost)) if self._lost else event

    def end(self) -> None:
        """The server ended the stream. Raises RequestFailed if it sent no result."""
        if not self._complete:
            raise RequestFailed("the server ended the request without a result; see its log")

    def abandoned(self, error: BaseException) -> bool:
        """Whether the server may still run this attempt."""
        text = (error.details() or "") if isinstance(error, grpc.RpcError) else ""
        return any(mark in text for mark in _NO_REPLY) or abandoned(error)

    def _move_on(self, error: ServerUnavailable) -> None:
        """Choose the next server after a refusal or a loss; raises the error of a second loss."""
        if self._begun or (self._sent and isinstance(error, Lost)):
            self._lose(error)
        elif self._lost:
            if time.monotonic() > self._until:
                raise self._not_made(error) from error
            # Perhaps it starts again. Triton answers before it has loaded its models.
            self._refusals.append(error)
            self._left.append(self._left.pop(0))
        else:
            super()._move_on(error)
        self._sent = self._begun = False

    def _lose(self, error: ServerUnavailable) -> None:
        if self._lost:
            raise self._not_made(error) from error
        index = self._servers.index(self._left[0])
        self._left = [*self._servers[index + 1 :], *self._servers[: index + 1]]
        self._refusals.clear()
        self.request = self.request.again(self._last.asked_seed if self._last else None)
        self._complete = False
        self._lost = f"{self._servers[index].url} was lost; the request was sent again"
        self._until = time.monotonic() + RECOVERY

    def _timed_out(self) -> TimedOut:
        error = super()._timed_out()
        return TimedOut(f"{error}\n  {self._lost}") if self._lost else error

    def _not_made(self, error: ServerUnavailable) -> ServerUnavailable:
        seed = f", with seed={self._last.asked_seed} for the same result" if self._last else ""
        return ServerUnavailable(f"{error}\n  before, {self._lost}; send it again later{seed}")


def abandoned(error: BaseException) -> bool:
    """Whether the client ended the stream, so that the server still runs the request."""
    if isinstance(error, grpc.RpcError):
        return bool(error.code() is grpc.StatusCode.DEADLINE_EXCEEDED)
    return not isinstance(error, ClientError)
