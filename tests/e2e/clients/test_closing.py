"""Clients close their connections; a request that is active by then is cancelled."""

import asyncio
import threading
import time

import psutil
import pytest

from stepwise.client import AsyncClient, Cancelled, Client, ClientError
from tests.support.servers import assert_freed, running

CLOSED = "the client is closed; create another one for further calls"


def connections(server):
    """The local ports of this process's connections to the server."""
    port = int(server.grpc_url.rpartition(":")[2])
    return {
        one.laddr.port
        for one in psutil.Process().net_connections("tcp")
        if one.raddr and one.raddr.port == port and one.status == psutil.CONN_ESTABLISHED
    }


def assert_disconnected(server, ports):
    """gRPC closes the socket of a closed channel in a thread of its own."""
    deadline = time.monotonic() + 5
    while ports & connections(server):
        assert time.monotonic() < deadline, f"still connected from {ports}"
        time.sleep(0.02)


def test_a_closed_client_has_no_connection_and_refuses_calls(server):
    before = connections(server)
    with Client(server.grpc_url) as client:
        assert client.pictures("mock", "a star", steps=1)
        opened = connections(server) - before
    assert len(opened) == 1
    assert_disconnected(server, opened)
    for call in (
        client.pipelines,
        lambda: client.about("mock"),
        lambda: client.inputs("mock"),
        lambda: client.generate("mock", "a star"),
        lambda: client.pictures("mock", "a star"),
    ):
        with pytest.raises(ClientError, match=CLOSED):
            call()
    client.close()


def test_a_closed_asyncio_client_has_no_connection_and_refuses_calls(server):
    async def run():
        before = connections(server)
        async with AsyncClient(server.grpc_url) as client:
            assert await client.pictures("mock", "a star", steps=1)
            opened = connections(server) - before
        assert len(opened) == 1
        assert_disconnected(server, opened)
        for call in (
            lambda: client.pipelines(),
            lambda: client.about("mock"),
            lambda: client.inputs("mock"),
            lambda: client.pictures("mock", "a star"),
        ):
            with pytest.raises(ClientError, match=CLOSED):
                await call()
        with pytest.raises(ClientError, match=CLOSED):
            client.generate("mock", "a star")
        await client.aclose()

    asyncio.run(run())


def test_closing_cancels_a_request_that_nobody_reads(server):
    with Client(server.grpc_url) as client:
        events = client.generate("mock", "a star", steps=10_000)
        next(events)
        assert running(server) == (events.request_id,)
    assert_freed(server)
    with pytest.raises(Cancelled, match="the client was closed"):
        list(events)


def test_closing_cancels_a_request_that_another_thread_reads(server):
    client, errors, started = Client(server.grpc_url), [], threading.Event()

    def read():
        try:
            for _ in client.generate("mock", "a star", steps=10_000):
                started.set()
        except ClientError as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    started.wait()
    client.close()
    thread.join()
    assert [type(error) for error in errors] == [Cancelled]
    assert_freed(server)


def test_closing_cancels_a_request_that_another_task_reads(server):
    async def run():
        started = asyncio.Event()

        async def read(client):
            async for _ in client.generate("mock", "a star", steps=10_000):
                started.set()

        async with AsyncClient(server.grpc_url) as client:
            task = asyncio.create_task(read(client))
            await started.wait()
        with pytest.raises(Cancelled):
            await task

    asyncio.run(run())
    assert_freed(server)


def test_closing_cancels_a_request_on_a_server_that_is_silent(doomed):
    async def run():
        async with AsyncClient(doomed.grpc_url) as client:
            events = client.generate("mock", "a star", steps=10_000)
            await anext(events)
            psutil.Process(doomed.pid).suspend()
        with pytest.raises(Cancelled, match="the client was closed"):
            [event async for event in events]

    try:
        asyncio.run(run())
    finally:
        psutil.Process(doomed.pid).resume()
