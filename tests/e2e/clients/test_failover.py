"""Clients of several servers: round robin, and servers that are unreachable, full or silent."""

import asyncio
import socket
import time

import pytest

from stepwise.client import AsyncClient, Client, ServerUnavailable
from stepwise.server.drain import drain
from tests.support.servers import assert_freed, dying, running


def test_requests_skip_servers_that_are_unreachable_or_full(server, full):
    urls = ["127.0.0.1:9", full.grpc_url, server.grpc_url]
    client = Client(urls)
    seeds = [client.pictures("mock", "a star", steps=1, seed=n)[0].seed for n in range(6)]
    assert seeds == list(range(6))

    async def run():
        other = AsyncClient(",".join(urls))
        return await asyncio.gather(*(other.pictures("mock", "a star", seed=n) for n in range(6)))

    assert [pictures[0].seed for pictures in asyncio.run(run())] == list(range(6))


def test_requests_are_spread_over_the_servers(server, doomed):
    client = Client([server.grpc_url, doomed.grpc_url])
    streams = [client.generate("mock", "a star", steps=10_000) for _ in range(4)]
    for stream in streams:
        next(stream)
    counts = [len(running(one)) for one in (server, doomed)]
    for stream in streams:
        stream.close()
    assert counts == [2, 2]
    assert_freed(server)


def test_requests_skip_a_server_that_drains(server, doomed):
    client = Client([doomed.grpc_url, server.grpc_url])
    under_way = client.generate("mock", "a star", steps=20)
    next(under_way)
    drain(doomed.http_url, doomed.metrics_url, doomed.settings.key, ["mock"], limit=0)
    assert [client.pictures("mock", "a star", seed=n)[0].seed for n in range(4)] == [0, 1, 2, 3]
    assert list(under_way)[-1].kind == "result"


def test_when_no_server_accepts_a_request_the_error_lists_each_reason(full):
    with pytest.raises(ServerUnavailable) as raised:
        Client(["127.0.0.1:9", full.grpc_url]).pictures("mock", "a star")
    first, away, no_place = str(raised.value).split("\n")
    assert first == "no server took it:"
    assert away.startswith("  127.0.0.1:9: ")
    assert away.endswith("is the server running (stepwise serve)?")
    assert no_place == f"  {full.grpc_url}: the queue is full: 256 requests wait; try again later"


def test_a_silent_host_is_skipped(server):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent_url = f"127.0.0.1:{silent.getsockname()[1]}"
        client = Client([silent_url, server.grpc_url], timeout=15)
        assert client.pictures("mock", "a star", steps=1)


@pytest.mark.parametrize("index", [0, 1])
def test_a_request_is_not_silently_repeated_when_its_server_dies(server, doomed, index):
    client = Client([doomed.grpc_url, server.grpc_url])
    events = client.generate("mock", "a star", steps=10_000, num_images=index + 1)
    seed = [next(events) for _ in range(index + 1)][-1].seed - index
    doomed.process.kill()
    with pytest.raises(ServerUnavailable, match=rf"lost at step \d+ of 10000.* seed={seed} for"):
        list(events)
    assert running(server) == ()
    for _ in range(4):
        assert client.pictures("mock", "a star", steps=1)


def test_an_async_request_is_not_silently_repeated_when_its_server_dies(server, doomed):
    async def run():
        async for event in AsyncClient([doomed.grpc_url, server.grpc_url]).generate(
            "mock", "a star", steps=10_000, seed=5
        ):
            if event.step == 1:
                doomed.process.kill()

    with pytest.raises(ServerUnavailable, match=r"lost at step \d+ of 10000.* seed=5 for"):
        asyncio.run(run())


def test_a_restarted_server_is_used_again(repository):
    with dying(repository) as first:
        client = Client(first.grpc_url)
        assert client.pictures("mock", "a star", steps=1)
    with pytest.raises(ServerUnavailable):
        client.pictures("mock", "a star", steps=1)
    with dying(repository, first.settings.ports.grpc):
        time.sleep(1.5)  # gRPC waits up to 1 s before it connects again
        assert client.pictures("mock", "a star", steps=1)
