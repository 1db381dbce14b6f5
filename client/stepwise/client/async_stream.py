"""The stream of one request, read in a task that its consumer's cancellation does not reach.

gRPC cancels a call together with the task that reads it, and AnyIO cancels every await of a
cancelled scope. Either would end the stream before the server knows that nobody waits for it.
"""

import asyncio
import weakref
from collections.abc import AsyncGenerator, Coroutine
from contextlib import suppress
from typing import Any

import grpc

from stepwise.client.client import CANCEL_SECONDS
from stepwise.client.connection import Server
from stepwise.client.errors import Cancelled, ClientError, of_status, of_text
from stepwise.client.events import Event
from stepwise.client.failover import RequestAttempts
from stepwise.client.protocol import Request

# An event loop refers to its tasks weakly.
_TASKS: set[asyncio.Task[None]] = set()


class Stream:
    """Receives the events that the generator ``events`` yields for the request of ``attempts``."""

    def __init__(self, attempts: RequestAttempts, events: AsyncGenerator[Event, None]) -> None:
        self._attempts = attempts
        self._events = events
        self._received: asyncio.Queue[Event | Exception | None] = asyncio.Queue()
        self._reader: asyncio.Task[None] | None = None
        self._stopper: asyncio.Task[None] | None = None
        self._left = False

    def start(self, consumer: object) -> None:
        """Begin to read, unless that was done before; stop when ``consumer`` is collected."""
        if self._reader is None and not self._left:
            self._reader = _spawn(self._read())
            loop = asyncio.get_running_loop()
            weakref.finalize(consumer, _leave_soon, loop, self).atexit = False

    async def receive(self) -> Event:
        """The next event. Raises StopAsyncIteration after the last, or the request's error.

        If the caller is cancelled, so is the request.
        """
        try:
            received = await self._received.get()
        except asyncio.CancelledError:
            self.leave()
            raise
        if isinstance(received, Event):
            return received
        self._received.put_nowait(None)
        if received is None:
            raise StopAsyncIteration
        raise received

    def leave(self) -> None:
        """Cancel the request if it has not ended. Returns at once; tasks do the rest."""
        if self._left:
            return
        self._left = True
        self._received.put_nowait(None)
        if self._reader is not None and not self._reader.done():
            self._stopper = _spawn(self._stop(self._reader))

    async def cancel(self) -> None:
        """Cancel the request on the server. Raises the error if the server is not notified."""
        server = self._attempts.cancel()
        if server is not None:
            try:
                await tell(server, self._attempts.request)
            except grpc.RpcError as error:
                raise of_status(error, server.url) from error

    async def abort(self) -> None:
        """Cancel the request and wait for its end; the consumer gets Cancelled."""
        with suppress(ClientError):
            await self.cancel()
        if self._reader is not None:
            await asyncio.wait({self._reader}, timeout=CANCEL_SECONDS)
            if not self._reader.done():
                self._received.put_nowait(Cancelled("the client was closed"))
                self._reader.cancel()

    async def ended(self) -> None:
        """Wait until the server has ended the stream."""
        tasks = {task for task in (self._reader, self._stopper) if task is not None}
        if tasks:
            await asyncio.wait(tasks)

    async def _read(self) -> None:
        try:
            async for event in self._events:
                if not self._left:
                    self._received.put_nowait(event)
        except Exception as error:
            self._received.put_nowait(error)
        finally:
            self._received.put_nowait(None)

    async def _stop(self, reader: asyncio.Task[None]) -> None:
        """Notify the server, which then ends the stream."""
        server = self._attempts.cancel()
        if server is not None:
            try:
                await tell_if_possible(server, self._attempts.request)
            except asyncio.CancelledError:
                # The end of asyncio.run has cancelled the call with gRPC's own tasks for it.
                await tell_if_possible(server, self._attempts.request)
        await asyncio.wait({reader}, timeout=CANCEL_SECONDS)
        reader.cancel()


async def drain(call: Any) -> None:
    """Read a stream that the server is ending to its end.

    A call that is left open is completed by gRPC in the next event loop of the process, which logs
    an error.
    """
    with suppress(TimeoutError, grpc.RpcError):
        async with asyncio.timeout(CANCEL_SECONDS):
            async for _ in call:
                pass
    call.cancel()


async def tell(server: Server, request: Request) -> None:
    """Cancel ``request`` on ``server``; raises the error of the server or of gRPC."""
    call = server.call("ModelStreamInfer", iter([request.cancelling()]), CANCEL_SECONDS)
    # Read to the end for the reason that ``drain`` has.
    for response in [response async for response in call]:
        if response.error_message:
            raise of_text(response.error_message, server.url)


async def tell_if_possible(server: Server, request: Request) -> None:
    """``tell``, without an error.

    Uses a new connection, because the client's may have been garbage-collected with its consumer.
    """
    with suppress(grpc.RpcError, ClientError):
        await tell(server.separate(), request)


def _spawn(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.get_running_loop().create_task(coroutine)
    _TASKS.add(task)
    task.add_done_callback(_TASKS.discard)
    return task


def _leave_soon(loop: asyncio.AbstractEventLoop, stream: Stream) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(stream.leave)
