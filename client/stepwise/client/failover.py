"""Selects the server for a call, moves on to the next one, and raises the client's errors."""

import itertools
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2_grpc

from stepwise.client.errors import (
    Cancelled,
    ClientError,
    NotServed,
    RequestFailed,
    ServerUnavailable,
    TimedOut,
    of_status,
    of_text,
)
from stepwise.client.events import Event, parse

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Limits a connection attempt: if a host stays silent, the next server is tried.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    # Limits the delay until a restarted server is noticed; gRPC's default is 2 minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


class Server:
    """One address and its connection, closed when this object is garbage-collected."""

    def __init__(self, url: str, open_channel: Callable[..., Any]) -> None:
        self.url = url
        self._open_channel = open_channel

    @cached_property
    def stub(self) -> Any:
        """Triton's calls by name; opens the connection in the event loop or process in use."""
        channel = self._open_channel(self.url, options=_OPTIONS)
        if not isinstance(channel, grpc.aio.Channel):  # closes itself
            weakref.finalize(self, channel.close)
        return service_pb2_grpc.GRPCInferenceServiceStub(channel)


class Servers:
    """The servers of a client, used round-robin: each request starts at the next one."""

    def __init__(self, urls: str | Sequence[str], open_channel: Callable[..., Any]) -> None:
        listed = urls.split(",") if isinstance(urls, str) else urls
        self.all = [Server(url.strip(), open_channel) for url in listed]
        self._next = itertools.count()

    def round_robin(self) -> list[Server]:
        """All servers, the next one first."""
        first = next(self._next) % len(self.all)
        return self.all[first:] + self.all[:first]


class Attempts:
    """One call, tried on one server after another.

    ``for server in attempts: with attempts.on(server): …; return``, and ``refusal()`` after it. The
    call moves on if a server cannot be reached, does not serve the pipeline, is stopping or is
    full. It does not move on after the first event: another server would start again, and without a
    seed make a different picture.
    """

    def __init__(self, servers: Sequence[Server], timeout: float | None) -> None:
        self.timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._left = list(servers)
        self._refusals: list[ServerUnavailable] = []
        self._server: Server | None = None
        self._cancelled = False
        self._last: Event | None = None
        self._complete = False

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
            typed = of_status(error, server.url)
            if isinstance(typed, TimedOut):
                raise self._timed_out() from error
            if not isinstance(typed, ServerUnavailable):
                raise typed from error
            self._move_on(typed)
        finally:
            self._server = None

    def event(self, server: Server, response: Any) -> Event:
        """The event in a ``ModelStreamInferResponse``; raises the error in it."""
        if response.error_message:
            raise of_text(response.error_message, server.url)
        self._last = parse(response.infer_response)
        self._complete = self._complete or self._last.kind == "result"
        return self._last

    def end(self) -> None:
        """The server ended the stream. Raises RequestFailed if it sent no result."""
        if not self._complete:
            raise RequestFailed("the server ended the request without a result; see its log")

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
        if self._last is not None:
            raise ServerUnavailable(
                f"{error}\n  lost at step {self._last.step} of {self._last.steps}; the client does "
                "not retry after the first event: send the request again, with "
                f"seed={self._last.asked_seed} for the same result"
            ) from error
        self._refusals.append(error)
        self._left.pop(0)

    def _timed_out(self) -> TimedOut:
        return TimedOut(
            f"no complete answer within {self.timeout:g} s; the server may be busy: "
            "allow more time or ask for fewer steps"
        )


def abandoned(error: BaseException) -> bool:
    """Whether the client ended the stream, so that the server still runs the request."""
    if isinstance(error, grpc.RpcError):
        return bool(error.code() is grpc.StatusCode.DEADLINE_EXCEEDED)
    return not isinstance(error, ClientError)
