"""Clients of several servers: round robin, and servers that are unreachable, full or silent."""

import asyncio
import socket
import time

import numpy as np
import pytest

from stepwise.client import AsyncClient, Cancelled, Client, ServerUnavailable
from stepwise.server.drain import drain
from tests.support.scenes import scene
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
    drain(doomed.http_url, doomed.settings.key, ["mock"], doomed.settings.state, limit=0)
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


LOST = "{} was lost; the request was sent again"


@pytest.mark.parametrize("index", [0, 1])
def test_a_request_is_sent_again_when_its_server_dies(server, doomed, index):
    client = Client([doomed.grpc_url, server.grpc_url])
    events = client.generate("mock", "a star", steps=60, num_images=index + 1)
    before = [next(events) for _ in range(index + 1)]
    doomed.process.kill()
    after = list(events)
    results = [event for event in after if event.kind == "result"]
    assert [event.seed for event in results] == [before[0].seed + n for n in range(index + 1)]
    # Events of the first server may be on their way to the caller after its death.
    marked = [event for event in (*before, *after) if event.notes]
    assert marked == after[-len(marked) :]
    assert all(event.notes == (LOST.format(doomed.grpc_url),) for event in marked)
    assert marked[0].step == 1
    for _ in range(4):
        assert client.pictures("mock", "a star", steps=1)


def test_an_async_request_is_sent_again_when_its_server_dies(server, doomed):
    async def run():
        async for event in AsyncClient([doomed.grpc_url, server.grpc_url]).generate(
            "mock", "a star", steps=60
        ):
            if event.step == 30 and not event.notes:
                doomed.process.kill()
            yield event

    async def collect():
        return [event async for event in run()]

    events = asyncio.run(collect())
    assert len({event.seed for event in events}) == 1
    assert (events[-1].kind, events[-1].notes) == ("result", (LOST.format(doomed.grpc_url),))
    assert [event.step for event in events].count(1) == 2


def test_a_video_that_is_sent_again_has_each_slice_once(repository):
    """The only server dies while it sends slices, and comes back."""
    with dying(repository) as first:
        client = Client(first.grpc_url)
        events = client.generate("film", "a star", steps=2, frames=49, seed=5)
        before = []
        while len([event for event in before if event.kind == "result"]) < 4:
            before.append(next(events))
    with dying(repository, first.settings.ports.grpc):
        after = list(events)
    slices = [event for event in (*before, *after) if event.kind == "result"]
    assert [event.index for event in slices] == [0, *range(1, 49, 4)]
    assert after[-1].notes == (LOST.format(first.grpc_url),)
    assert np.array_equal(np.concatenate([event.frames for event in slices]), scene(49, 48, 64, 5))


def until_sent_again(events):
    """Read events until those of the second attempt."""
    while not next(events).notes:
        pass


def test_a_request_whose_second_server_dies_as_well_is_an_error(doomed, repository):
    with dying(repository) as second:
        client = Client([doomed.grpc_url, second.grpc_url])
        events = client.generate("mock", "a star", steps=10_000, seed=5)
        next(events)
        doomed.process.kill()
        until_sent_again(events)
        second.process.kill()
        with pytest.raises(ServerUnavailable, match=r"was lost;.* send it again.* seed=5 for"):
            list(events)


def test_a_cancelled_request_is_not_sent_again(doomed, server):
    client = Client([doomed.grpc_url, server.grpc_url])
    events = client.generate("mock", "a star", steps=10_000)
    next(events)
    doomed.process.kill()
    until_sent_again(events)
    events.cancel()
    with pytest.raises(Cancelled, match="stopped at step"):
        list(events)
    assert_freed(server)


def test_a_restarted_server_is_used_again(repository):
    with dying(repository) as first:
        client = Client(first.grpc_url)
        assert client.pictures("mock", "a star", steps=1)
    with pytest.raises(ServerUnavailable):
        client.pictures("mock", "a star", steps=1)
    with dying(repository, first.settings.ports.grpc):
        time.sleep(1.5)  # gRPC waits up to 1 s before it connects again
        assert client.pictures("mock", "a star", steps=1)
