"""A connection that dies without being closed is noticed; a silent one with pings lives."""

import asyncio

import pytest

from stepwise.client import AsyncClient, Client, connection
from stepwise.client.failover import TIMEOUT
from tests.support.servers import assert_freed
from tests.support.stalling import stalling

KEEPALIVE = "grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms"
LOST = "%s was lost; the request was sent again"


def with_keepalive(monkeypatch, named):
    options = {**dict(connection._OPTIONS), **named}
    monkeypatch.setattr(connection, "_OPTIONS", tuple(options.items()))


@pytest.fixture
def impatient(monkeypatch):
    with_keepalive(monkeypatch, dict.fromkeys(KEEPALIVE, 500))


def test_a_connection_is_noticed_to_be_dead_within_half_a_minute():
    every, *timeouts = (dict(connection._OPTIONS)[name] for name in KEEPALIVE)
    assert every + max(timeouts) <= 30_000


@pytest.mark.usefixtures("impatient")
def test_a_request_on_a_dead_connection_is_sent_again(server):
    with stalling(server.grpc_url) as proxy, Client(proxy.url, timeout=60) as client:
        events = client.generate("mock", "a star", steps=250, seed=7)
        next(events)
        proxy.stall()
        *_, last = events
        assert (last.kind, last.seed, last.notes) == ("result", 7, (LOST % proxy.url,))
        # The first attempt was cancelled.
        assert_freed(server)


@pytest.mark.usefixtures("impatient")
def test_an_async_request_on_a_dead_connection_is_sent_again(server):
    async def run(proxy):
        async with AsyncClient(proxy.url, timeout=60) as client:
            async for event in client.generate("mock", "a star", steps=250, seed=7):
                if event.step == 1 and not event.notes:
                    proxy.stall()
            return event

    with stalling(server.grpc_url) as proxy:
        last = asyncio.run(run(proxy))
        assert (last.kind, last.seed, last.notes) == ("result", 7, (LOST % proxy.url,))
    assert_freed(server)


@pytest.mark.usefixtures("impatient")
def test_a_request_moves_on_from_a_dead_connection(server):
    with stalling(server.grpc_url) as proxy:
        with Client([proxy.url, server.grpc_url], timeout=20) as client:
            assert client.pictures("mock", "a star", steps=1, seed=1)[0].seed == 1
            proxy.stall()
            seeds = [client.pictures("mock", "a star", steps=1, seed=n)[0].seed for n in (2, 3)]
        assert seeds == [2, 3]


@pytest.mark.further
def test_a_silent_stream_with_many_pings_lives(server, monkeypatch):
    """Pings as often as the server permits, in a stream without data."""
    with_keepalive(monkeypatch, {KEEPALIVE[0]: 11_000})
    with Client(server.grpc_url, timeout=60) as client:
        events = client.generate("film", "stalls", frames=145)
        for _ in range(4 + 11):
            next(events)
        with pytest.raises(Exception, match="no complete answer within 60 s"):
            next(events)
    assert_freed(server)


def test_by_default_a_request_outlasts_the_longest_deadline_of_a_video():
    assert Client().timeout == AsyncClient().timeout == TIMEOUT == 25 * 60 * 60
