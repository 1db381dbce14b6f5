"""Cancellation by asyncio, AnyIO and FastAPI stops a request on the server, with nothing left."""

import asyncio
import http.client
import threading
import time
from contextlib import contextmanager

import anyio
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from stepwise.client import AsyncClient
from tests.support.servers import assert_freed


async def consume(client, started=None):
    async for _ in client.generate("mock", "a star", steps=10_000):
        if started is not None:
            started.set()


async def by_task(client):
    task = asyncio.create_task(consume(client))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_timeout(client):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await consume(client)


async def by_task_group(client):
    async def fail():
        await asyncio.sleep(0.1)
        raise ValueError("a sibling failed")

    async def both():
        async with asyncio.TaskGroup() as group:
            group.create_task(consume(client))
            group.create_task(fail())

    with pytest.raises(ExceptionGroup):
        await both()


async def by_anyio_timeout(client):
    with anyio.move_on_after(0.1) as scope:
        await consume(client)
    assert scope.cancelled_caught


async def by_anyio_task_group(client):
    started = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(consume, client, started)
        await started.wait()
        group.cancel_scope.cancel()


WAYS = [by_task, by_timeout, by_task_group, by_anyio_timeout, by_anyio_task_group]


@pytest.mark.parametrize("leave", WAYS)
def test_a_cancelled_scope_stops_the_request_while_its_loop_goes_on(server, leave):
    async def run():
        await leave(AsyncClient(server.grpc_url))
        await asyncio.to_thread(assert_freed, server)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        deadline = time.monotonic() + 2
        while others and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
            others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others

    asyncio.run(run())


@pytest.mark.parametrize("leave", WAYS)
def test_a_cancelled_scope_stops_the_request_at_the_end_of_its_loop(server, leave, caplog):
    for _ in range(3):
        asyncio.run(leave(AsyncClient(server.grpc_url)))
        assert_freed(server)
    assert not caplog.messages


@contextmanager
def application(url):
    """A FastAPI application that streams the events of a request; its port."""
    app, client = FastAPI(), AsyncClient(url)

    @app.get("/events")
    async def events():
        async def lines():
            async for event in client.generate("mock", "a star", steps=10_000):
                yield f"data: {event.step}\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream")

    runner = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=runner.run)
    thread.start()
    while not runner.started:
        time.sleep(0.01)
    yield runner.servers[0].sockets[0].getsockname()[1]
    runner.should_exit = True
    thread.join()


def test_a_browser_that_leaves_an_event_stream_stops_the_request(server):
    with application(server.grpc_url) as port:
        for _ in range(3):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/events")
            answer = connection.getresponse()
            assert answer.readline().startswith(b"data: ")
            answer.close()
            connection.close()
            assert_freed(server)
