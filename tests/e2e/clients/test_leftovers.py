"""A thousand requests leave no threads, open files or memory behind in the client's process."""

import asyncio
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager

import psutil

from stepwise.client import AsyncClient, Client
from tests.support.servers import FREED_SECONDS, assert_freed

MEMORY_CEILING = 8 << 20
THREADS_CEILING = 4


@contextmanager
def nothing_left():
    """Asserts that threads, open files and memory return to their counts before the context.

    gRPC's native threads vary with the load, so the ceiling allows a few. A leak of one thread
    per hundred requests would leave ten.
    """
    process = psutil.Process()
    gc.collect()
    of_python, threads = threading.active_count(), process.num_threads()
    files, memory = process.num_fds(), process.memory_info().rss
    yield
    gc.collect()
    deadline = time.monotonic() + FREED_SECONDS
    # gRPC closes the last connection in a thread of its own.
    while process.num_threads() > threads or process.num_fds() > files:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    grown = process.memory_info().rss - memory
    print(f"threads {process.num_threads() - threads:+}, ceiling {THREADS_CEILING}")
    print(f"Python's {threading.active_count() - of_python:+}, files {process.num_fds() - files:+}")
    print(f"memory {grown / 2**20:+.1f} MiB, ceiling {MEMORY_CEILING >> 20} MiB")
    assert threading.active_count() <= of_python
    assert process.num_threads() <= threads + THREADS_CEILING
    assert process.num_fds() <= files
    assert grown <= MEMORY_CEILING


def draw_or_leave(client, index):
    """Run a request to its end, or abandon every fifth after its first event."""
    if index % 5:
        assert client.pictures("mock", "a star", steps=1)
    else:
        events = client.generate("mock", "a star", steps=10_000)
        next(events)
        events.close()


def test_a_thousand_requests_leave_nothing_behind(server, client):
    def draw_many(count):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda index: draw_or_leave(client, index), range(count)))
        assert_freed(server)

    draw_many(200)
    with nothing_left():
        draw_many(1000)


def test_a_thousand_async_requests_leave_nothing_behind(server):
    async def draw(client, index):
        async with gate:
            if index % 5:
                assert await client.pictures("mock", "a star", steps=1)
            else:
                async with aclosing(client.generate("mock", "a star", steps=10_000)) as events:
                    await anext(events)

    async def run():
        client = AsyncClient(server.grpc_url)
        await asyncio.gather(*(draw(client, index) for index in range(100)))
        with nothing_left():
            await asyncio.gather(*(draw(client, index) for index in range(1000)))

    gate = asyncio.Semaphore(8)
    asyncio.run(run())
    assert_freed(server)


def test_deleted_clients_close_their_connections(server):
    def one():
        assert Client(server.grpc_url).pictures("mock", "a star", steps=1)

    async def async_one():
        assert await AsyncClient(server.grpc_url).pictures("mock", "a star", steps=1)

    one()
    asyncio.run(async_one())
    with nothing_left():
        for _ in range(20):
            one()
            asyncio.run(async_one())
