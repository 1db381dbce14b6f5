"""The asyncio version of ``client.client``: the same methods, awaited or iterated over."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, Self
from weakref import WeakSet

import grpc.aio

from stepwise.client import protocol
from stepwise.client.async_stream import Stream, drain, tell_if_possible
from stepwise.client.errors import ClientError
from stepwise.client.events import Event, whole
from stepwise.client.failover import TIMEOUT, Attempts, RequestAttempts, Servers
from stepwise.client.protocol import About, Request, Setting


class AsyncClient:
    """As ``Client``, for one event loop, with ``async with``. Connects at the first call."""

    def __init__(
        self,
        urls: str | Sequence[str] = "127.0.0.1:8001",
        timeout: float | None = TIMEOUT,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.timeout = timeout
        self._servers = Servers(urls, grpc.aio, headers)
        self._configs: dict[str, Any] = {}
        self._streams: WeakSet[Stream] = WeakSet()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """As ``Client.close``."""
        await asyncio.gather(*(stream.abort() for stream in self._streams))
        for server in self._servers.all:
            await server.aclose()

    async def pipelines(self) -> tuple[str, ...]:
        """As ``Client.pipelines``."""
        attempts = Attempts(self._servers.all, self.timeout)
        for server in attempts:
            with attempts.on(server):
                asked = protocol.server_metadata()
                answer = await server.call("ServerMetadata", asked, attempts.seconds_left)
                return protocol.pipelines(answer, server.url)
        raise attempts.refusal()

    async def inputs(self, pipeline: str) -> Mapping[str, str]:
        """As ``Client.inputs``."""
        return protocol.input_types(await self._config(pipeline))

    async def about(self, pipeline: str) -> About:
        """As ``Client.about``."""
        return protocol.about(await self._config(pipeline))

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
        self._servers.require_open()
        attempts = RequestAttempts(self._servers.round_robin(), self.timeout, request)
        stream = Stream(attempts, self._events(request, attempts))
        self._streams.add(stream)
        return AsyncEvents(request.id, stream)

    async def _results(self, request: Request) -> list[Event]:
        async with aclosing(self._start(request)) as events:
            return [event async for event in events if event.kind == "result"]

    async def _config(self, pipeline: str, attempts: Attempts | None = None) -> Any:
        self._servers.require_open()
        if pipeline in self._configs:
            return self._configs[pipeline]
        attempts = attempts or Attempts(self._servers.all, self.timeout)
        for server in attempts:
            with attempts.on(server):
                asked = protocol.config(pipeline)
                answer = await server.call("ModelConfig", asked, attempts.seconds_left)
                return self._configs.setdefault(pipeline, answer.config)
        raise await self._refusal(pipeline, attempts)

    async def _refusal(self, pipeline: str, attempts: Attempts) -> ClientError:
        if attempts.not_served:
            with suppress(ClientError):
                served = await self.pipelines()
                if pipeline not in served:
                    return protocol.unknown_pipeline(pipeline, served)
        return attempts.refusal()

    async def _events(
        self, request: Request, attempts: RequestAttempts
    ) -> AsyncGenerator[Event, None]:
        pipeline = request.pipeline
        config = await self._config(pipeline, attempts)
        about = protocol.about(config)
        recorded = request.recorded(about)
        for server in attempts:
            await asyncio.sleep(attempts.pause)
            with attempts.on(server):
                call, sent = attempts.send(server, config), attempts.request
                try:
                    async for response in call:
                        event = attempts.event(server, response)
                        if event is not None:
                            yield replace(event, request=recorded)
                    attempts.end()
                    return
                except ClientError:
                    await drain(call)
                    raise
                except BaseException as error:
                    # Before the server is notified, so that gRPC completes the call first: a call
                    # completed after its event loop has ended logs an error in the next loop.
                    call.cancel()
                    if attempts.abandoned(error):
                        await tell_if_possible(server, sent)
                    raise
        raise await self._refusal(pipeline, attempts)


class AsyncEvents(AsyncIterator[Event]):
    """As ``Events``."""

    def __init__(self, request_id: str, stream: Stream) -> None:
        self.request_id = request_id
        self._stream = stream

    async def __anext__(self) -> Event:
        self._stream.start(consumer=self)
        return await self._stream.receive()

    async def aclose(self) -> None:
        """Cancel the request, also on the server, and wait for its end."""
        self._stream.leave()
        await self._stream.ended()

    async def cancel(self) -> None:
        """As ``Events.cancel``, callable from any task."""
        await self._stream.cancel()
