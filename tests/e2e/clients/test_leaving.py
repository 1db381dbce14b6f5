"""A request that the client abandons in any way is stopped on the server."""

import asyncio
import gc
import subprocess
import sys
import threading
from contextlib import aclosing

import pytest

from stepwise.client import AsyncClient, Cancelled, Client, ServerUnavailable, TimedOut
from tests.support.servers import assert_freed

UNFINISHED = """
from stepwise.client import Client
events = Client("%s").generate("mock", "a star", steps=10_000)
print(next(events).step, flush=True)
input()
"""


def started(client):
    events = client.generate("mock", "a star", steps=10_000)
    next(events)
    assert events.request_id in running_at(client)
    return events


def running_at(client):
    return client.pictures("mock", "status")[0].notes


def closed(client):
    started(client).close()


def collected(client):
    events = started(client)
    del events


def collected_with_its_client(client):
    cycle = [Client(client._servers.all[0].url)]
    cycle += [cycle, started(cycle[0])]
    del cycle
    gc.collect()


def interrupted(client):
    events = started(client)
    with pytest.raises(KeyboardInterrupt):
        events._events.throw(KeyboardInterrupt)


def timed_out(client):
    hasty = Client(client._servers.all[0].url, timeout=0.3)
    with pytest.raises(TimedOut, match=r"no complete answer within 0\.3 s"):
        hasty.pictures("mock", "a star", steps=10_000)


@pytest.mark.parametrize(
    "leave", [closed, collected, collected_with_its_client, interrupted, timed_out]
)
def test_an_abandoned_request_is_stopped_on_the_server(server, client, leave):
    leave(client)
    assert_freed(server)


async def async_started(client):
    events = client.generate("mock", "a star", steps=10_000)
    await anext(events)
    assert events.request_id in (await client.pictures("mock", "status"))[0].notes
    return events


async def async_closed(client):
    async with aclosing(await async_started(client)):
        pass


async def async_collected(client):
    events = await async_started(client)
    del events
    await asyncio.sleep(0.1)


async def async_collected_with_its_client(client):
    cycle = [AsyncClient(client._servers.all[0].url)]
    cycle += [cycle, await async_started(cycle[0])]
    del cycle
    gc.collect()
    await asyncio.sleep(0.1)


async def async_left_at_the_end(client):
    async for _ in client.generate("mock", "a star", steps=10_000):
        return


async def async_cancelled(client):
    async def consume():
        async for _ in client.generate("mock", "a star", steps=10_000):
            first.set()

    first = asyncio.Event()
    task = asyncio.create_task(consume())
    await first.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def async_timed_out(client):
    client.timeout = 0.3
    with pytest.raises(TimedOut, match=r"no complete answer within 0\.3 s"):
        await client.pictures("mock", "a star", steps=10_000)


@pytest.mark.parametrize(
    "leave",
    [
        async_closed,
        async_collected,
        async_collected_with_its_client,
        async_left_at_the_end,
        async_cancelled,
        async_timed_out,
    ],
)
def test_an_abandoned_async_request_is_stopped_on_the_server(server, leave, caplog):
    for _ in range(5):  # gRPC logs the open calls of one event loop during the next one
        asyncio.run(leave(AsyncClient(server.grpc_url)))
        assert_freed(server)
    assert not caplog.messages


@pytest.mark.parametrize("lost", [False, True], ids=["served", "lost"])
def test_a_program_may_end_before_its_request(server, doomed, lost):
    """With the iterator in a global variable, which is collected last."""
    url = doomed.grpc_url if lost else server.grpc_url
    program = subprocess.Popen(
        [sys.executable, "-c", UNFINISHED % url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout.readline() == "1\n"
    if lost:
        doomed.process.kill()
    program.communicate("\n", timeout=60)
    assert program.returncode == 0
    assert_freed(server)


def test_another_thread_may_cancel(server, client):
    events = started(client)
    timer = threading.Timer(0.1, events.cancel)
    timer.start()
    with pytest.raises(Cancelled, match=r"stopped at step \d+ of 10000"):
        list(events)
    timer.join()
    assert_freed(server)


def test_another_task_may_cancel(server):
    async def run():
        events = await async_started(AsyncClient(server.grpc_url))
        task = asyncio.create_task(anext_until_error(events))
        await asyncio.sleep(0.1)
        await events.cancel()
        await task

    async def anext_until_error(events):
        async for _ in events:
            pass

    with pytest.raises(Cancelled, match=r"stopped at step \d+ of 10000"):
        asyncio.run(run())
    assert_freed(server)


def test_a_request_cancelled_before_its_start_never_starts(client):
    events = client.generate("mock", "a star")
    events.cancel()
    with pytest.raises(Cancelled, match="before it was started"):
        next(events)


def test_only_cancel_raises_when_the_server_is_unreachable(doomed):
    events = Client(doomed.grpc_url).generate("mock", "a star", steps=10_000)
    next(events)
    doomed.process.kill()
    doomed.process.wait()
    with pytest.raises(ServerUnavailable):
        events.cancel()
    events.close()
