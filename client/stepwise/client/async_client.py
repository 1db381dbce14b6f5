"""The asyncio version of ``client.client``: the same methods, awaited or iterated over."""

import asyncio
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any

import grpc
import grpc.aio

from stepwise.client import protocol
from stepwise.client.client import CANCEL_SECONDS
from stepwise.client.errors import ClientError, of_status, of_text
from stepwise.client.events import Event, whole
from stepwise.client.failover import Attempts, Server, Servers, abandoned
from stepwise.client.protocol import About, Request, Setting


class AsyncClient:
    """As ``Client``, for one event loop. Opens its connections at the first call."""

    def __init__(
        self, urls: str | Sequence[str] = "127.0.0.1:8001", timeout: float | None = None
    ) -> None:
        self.timeout = timeout
        self._servers = Servers(urls, grpc.aio.insecure_channel)
        self._configs: dict[str, Any] = {}

    async def inputs(self, pipeline: str) -> Mapping[str, str]:
        """As ``Client.inputs``."""
        return protocol.input_types(await self._config(pipeline))

    async def about(self, pipeline: str) -> About:
        """As ``Client.about``."""
        return protocol.about(await self._config(f"{pipeline}_prepare"))

    def generate(self, pipeline: str, prompt: str, **settings: Setting) -> "AsyncEvents":
        """As ``Client.generate``; cancelling the task also cancels the request.

        Leaving an ``async for`` early does not close the iterator: wrap it in
        ``contextlib.aclosing``, or the request runs until the iterator is garbage-collected.
        """
        return self._start(Request(pipeline, {"prompt": prompt, **settings}))

    async def pictures(self, pipeline: str, prompt: str, **settings: Setting) -> list[Event]:
        """As ``Client.pictures``."""
        return await self._results(Request(pipeline, {"prompt": prompt, **settings}, "image"))

    async def video(self, pipeline: str, prompt: str, **settings: Setting) -> Event:
        """As ``Client.video``."""
        asked = Request(pipeline, {"prompt": prompt, **settings}, "video")
        return whole(await self._results(asked))

    def _start(self, request: Request) -> "AsyncEvents":
        attempts = Attempts(self._servers.round_robin(), self.timeout)
        attempts.events = self._events(request, attempts)
        return AsyncEvents(request, attempts, attempts.events)

    async def _results(self, request: Request) -> list[Event]:
        async with aclosing(self._start(request)) as events:
            return [event async for event in events if event.kind == "result"]

    async def _config(self, model: str, attempts: Attempts | None = None) -> Any:
        if model in self._configs:
            return self._configs[model]
        attempts = attempts or Attempts(self._servers.all, self.timeout)
        for server in attempts:
            with attempts.on(server):
                asked = protocol.config(model)
                answer = await server.stub.ModelConfig(asked, timeout=attempts.seconds_left)
                return self._configs.setdefault(model, answer.config)
        raise attempts.refusal()

    async def _events(self, request: Request, attempts: Attempts) -> AsyncGenerator[Event, None]:
        message = request.message(await self._config(request.pipeline, attempts))
        for server in attempts:
            with attempts.on(server):
                call = server.stub.ModelStreamInfer(iter([message]), timeout=attempts.seconds_left)
                try:
                    async for response in call:
                        yield attempts.event(server, response)
                    attempts.end()
                    return
                except BaseException as error:
                    # Before the server is notified, so that gRPC completes the call first: a call
                    # completed after its event loop has ended logs an error in the next loop.
                    call.cancel()
                    if abandoned(error):
                        await _tell_if_possible(server, request)
                    raise
        raise attempts.refusal()


class AsyncEvents(AsyncIterator[Event]):
    """As ``Events``."""

    def __init__(
        self, request: Request, attempts: Attempts, events: AsyncGenerator[Event, None]
    ) -> None:
        self.request_id = request.id
        self._request = request
        self._attempts = attempts
        self._events = events
        self._collected: weakref.finalize[..., AsyncEvents] | None = None

    async def __anext__(self) -> Event:
        if self._collected is None:
            loop = asyncio.get_running_loop()
            self._collected = weakref.finalize(self, _close_soon, loop, self._events)
            self._collected.atexit = False
        try:
            return await anext(self._events)
        except BaseException:
            self._collected.detach()
            raise

    async def aclose(self) -> None:
        """Cancel the request, also on the server. Call it from the task that iterates."""
        await self._events.aclose()

    async def cancel(self) -> None:
        """As ``Events.cancel``, callable from any task."""
        server = self._attempts.cancel()
        if server is not None:
            try:
                await _tell(server, self._request)
            except grpc.RpcError as error:
                raise of_status(error, server.url) from error


def _close_soon(loop: asyncio.AbstractEventLoop, events: AsyncGenerator[Event, None]) -> None:
    """Cancel the request of a garbage-collected iterator, in its event loop.

    If asyncio.run is ending, it cancels this task before the task starts. It then closes the
    remaining generators and waits for them; ``events`` is among them because it refers to itself.
    """
    if not loop.is_closed():
        loop.call_soon_threadsafe(lambda: loop.create_task(_close(events)))


async def _close(events: AsyncGenerator[Event, None]) -> None:
    await events.aclose()


async def _tell(server: Server, request: Request) -> None:
    call = server.stub.ModelStreamInfer(iter([request.cancelling()]), timeout=CANCEL_SECONDS)
    for response in [response async for response in call]:
        if response.error_message:
            raise of_text(response.error_message, server.url)


async def _tell_if_possible(server: Server, request: Request) -> None:
    """Cancel the request on the server and ignore a failure to do so.

    Awaited, because the end of asyncio.run would cancel a separate task. Uses a new connection,
    because the client's may have been garbage-collected together with the iterator.
    """
    with suppress(grpc.RpcError, ClientError):
        await _tell(Server(server.url, grpc.aio.insecure_channel), request)
