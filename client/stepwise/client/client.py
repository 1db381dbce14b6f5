"""Calls a pipeline over gRPC and iterates over its responses; for asyncio, see ``async_client``."""

import atexit
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any, Self
from weakref import WeakSet

import grpc

from stepwise.client import protocol
from stepwise.client.connection import Server
from stepwise.client.errors import ClientError, of_status, of_text
from stepwise.client.events import Event, whole
from stepwise.client.failover import TIMEOUT, Attempts, RequestAttempts, Servers
from stepwise.client.protocol import About, Request, Setting

# To send and confirm a cancel, which usually takes a few milliseconds.
CANCEL_SECONDS = 1.0
_CLIENTS: WeakSet["Client"] = WeakSet()


class Client:
    """Connections to servers of the same pipelines. Thread-safe.

    ``urls`` is "host:port" or, with TLS, "https://host:port"; several are separated by commas, or a
    sequence. Requests are distributed round-robin; if a server cannot take one, the next server is
    tried (see ``Attempts``). ``timeout`` limits a whole request in seconds, from ``generate`` on;
    the default is 25 hours, None sets no limit. ``headers`` are sent with every call, such as
    ``{"authorization": "Bearer …"}``. Raises InvalidRequest for a URL or header that gRPC does not
    accept.

    All requests to a server share one connection, opened at the first request and closed by
    ``close``, at the end of ``with Client(…) as client:``, or when the client is collected. It does
    not survive a fork: use a client in one process only.
    """

    def __init__(
        self,
        urls: str | Sequence[str] = "127.0.0.1:8001",
        timeout: float | None = TIMEOUT,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.timeout = timeout
        self._servers = Servers(urls, grpc, headers)
        self._configs: dict[str, Any] = {}
        # By id: requests that a server may be working on.
        self._active: dict[str, tuple[Server, Request]] = {}
        _CLIENTS.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, from any thread. Active requests are cancelled.

        Their iterators raise Cancelled, and further calls ClientError.
        """
        active = list(self._active.values())
        for server in self._servers.all:
            server.close()
        for server, request in active:
            _tell_in_background(server, request)

    def pipelines(self) -> tuple[str, ...]:
        """The names of the pipelines that the first server that answers serves.

        Raises ServerUnavailable if no server answers.
        """
        attempts = Attempts(self._servers.all, self.timeout)
        for server in attempts:
            with attempts.on(server):
                asked = protocol.server_metadata()
                answer = server.call("ServerMetadata", asked, attempts.seconds_left)
                return protocol.pipelines(answer, server.url)
        raise attempts.refusal()

    def inputs(self, pipeline: str) -> Mapping[str, str]:
        """The names and Triton types of the pipeline's inputs, requested once and then cached.

        Raises ServerUnavailable if no server answers, InvalidRequest if none serves the pipeline.
        """
        return protocol.input_types(self._config(pipeline))

    def about(self, pipeline: str) -> About:
        """The pipeline's defaults, ranges and samplers, cached. Raises as ``inputs`` does."""
        return protocol.about(self._config(pipeline))

    def generate(self, pipeline: str, prompt: str, **settings: Setting) -> "Events":
        """Iterate over progress, previews and results in the order in which the server sends them.

        A video pipeline sends several results: the slices of one video, in order. ``settings`` are
        the pipeline's inputs by name, for example ``steps=20, seed=7``; text is converted to the
        input's type, and a picture is uint8 (height, width, 3). The first ``next()`` sends the
        request. Closing or garbage-collecting the iterator cancels it on the server.
        Iterating raises InvalidRequest, ServerUnavailable, TimedOut, Cancelled or RequestFailed.
        """
        return self._start(Request(pipeline, {"prompt": prompt, **settings}))

    def pictures(self, pipeline: str, prompt: str, **settings: Setting) -> list[Event]:
        """Wait for all pictures and return their results, one event each.

        Raises as iterating over ``generate`` does, and InvalidRequest for a video pipeline.
        """
        return self._results(Request(pipeline, {"prompt": prompt, **settings}, "image"))

    def video(self, pipeline: str, prompt: str, **settings: Setting) -> Event:
        """Wait for a video and return one event with all its frames.

        Raises as iterating over ``generate`` does, and InvalidRequest for a picture pipeline.
        """
        return whole(self._results(Request(pipeline, {"prompt": prompt, **settings}, "video")))

    def _start(self, request: Request) -> "Events":
        self._servers.require_open()
        attempts = RequestAttempts(self._servers.round_robin(), self.timeout, request)
        return Events(request, attempts, self._events(request, attempts))

    def _results(self, request: Request) -> list[Event]:
        with closing(self._start(request)) as events:
            return [event for event in events if event.kind == "result"]

    def _config(self, pipeline: str, attempts: Attempts | None = None) -> Any:
        """The config of a pipeline's model, cached."""
        self._servers.require_open()
        if pipeline in self._configs:
            return self._configs[pipeline]
        attempts = attempts or Attempts(self._servers.all, self.timeout)
        for server in attempts:
            with attempts.on(server):
                asked = protocol.config(pipeline)
                answer = server.call("ModelConfig", asked, attempts.seconds_left)
                return self._configs.setdefault(pipeline, answer.config)
        raise self._refusal(pipeline, attempts)

    def _refusal(self, pipeline: str, attempts: Attempts) -> ClientError:
        """InvalidRequest if no server serves the pipeline, ServerUnavailable for other reasons."""
        if attempts.not_served:
            with suppress(ClientError):
                served = self.pipelines()
                if pipeline not in served:  # else the server is stopping
                    return protocol.unknown_pipeline(pipeline, served)
        return attempts.refusal()

    def _events(self, request: Request, attempts: RequestAttempts) -> Generator[Event, None, None]:
        pipeline = request.pipeline
        config = self._config(pipeline, attempts)
        about = protocol.about(config)
        recorded = request.recorded(about)
        for server in attempts:
            time.sleep(attempts.pause)
            with attempts.on(server):
                call, sent = attempts.send(server, config), attempts.request
                self._active[request.id] = server, sent
                try:
                    for response in call:
                        event = attempts.event(server, response)
                        if event is not None:
                            yield replace(event, request=recorded)
                    attempts.end()
                    return
                except BaseException as error:
                    if attempts.abandoned(error):
                        _tell_in_background(server, sent)
                    raise
                finally:
                    del self._active[request.id]
                    call.cancel()
        raise self._refusal(pipeline, attempts)


class Events(Iterator[Event]):
    """An active request: the iterator of its events. ``request_id`` identifies it in logs."""

    def __init__(
        self, request: Request, attempts: RequestAttempts, events: Generator[Event, None, None]
    ) -> None:
        self.request_id = request.id
        self._attempts = attempts
        self._events = events

    def __next__(self) -> Event:
        return next(self._events)

    def close(self) -> None:
        """Cancel the request, on the server in the background. For the iterating thread."""
        self._events.close()

    def cancel(self) -> None:
        """Cancel the request, from any thread; the iterating thread gets Cancelled.

        Returns once the server has confirmed. Raises ClientError if it cannot be reached.
        """
        server = self._attempts.cancel()
        if server is not None:
            try:
                _tell(server, self._attempts.request)
            except grpc.RpcError as error:
                raise of_status(error, server.url) from error


@atexit.register
def _leave() -> None:
    """Cancel the active requests of a program that ends.

    Their iterators are collected after that, when no thread can start any more: Python 3.11 would
    wait for it forever.
    """
    end = time.monotonic() + CANCEL_SECONDS
    for server, request in [each for client in _CLIENTS for each in client._active.values()]:
        if time.monotonic() < end:
            with suppress(grpc.RpcError, ClientError):
                _tell(server.separate(), request)


def _tell(server: Server, request: Request) -> None:
    for response in server.call("ModelStreamInfer", iter([request.cancelling()]), CANCEL_SECONDS):
        if response.error_message:
            raise of_text(response.error_message, server.url)


def _tell_in_background(server: Server, request: Request) -> None:
    """Cancel the request on the server without waiting; ignore a failure to do so.

    An iterator may be garbage-collected in any thread, even the connection's own, together with the
    connection. So this uses a new thread and a new connection. At the end of the program ``_leave``
    has done it.
    """
    if sys.is_finalizing():
        return
    own = server.separate()

    def tell() -> None:
        with suppress(grpc.RpcError, ClientError):
            _tell(own, request)

    threading.Thread(target=tell, name="stepwise-cancel").start()
