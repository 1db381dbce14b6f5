"""Both clients read the same events and errors from a stream."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from stepwise.client import (
    AsyncClient,
    Cancelled,
    ClientError,
    InvalidRequest,
    RequestFailed,
    ServerUnavailable,
    TimedOut,
)


def test_both_clients_return_the_same_events(server, client):
    async def run():
        other = AsyncClient(server.grpc_url)
        events = [e async for e in other.generate("mock", "a star", **settings)]
        return events, await other.inputs("mock"), await other.about("mock")

    settings = {"steps": 5, "seed": 7, "num_images": 2, "preview_every": 2}
    events = list(client.generate("mock", "a star", **settings))
    async_events, inputs, about = asyncio.run(run())
    assert [(e.kind, e.step, e.index, e.seed) for e in events] == [
        (kind, step, index, 7 + index)
        for step, kind in enumerate(["progress", "preview", "progress", "preview", "result"], 1)
        for index in (0, 1)
    ]
    assert [shape(e) for e in events[::2]] == [None, (2, 2, 3), None, (2, 2, 3), (8, 8, 3)]
    assert list(map(repr, async_events)) == list(map(repr, events))
    assert (inputs, about) == (client.inputs("mock"), client.about("mock"))
    assert [event.kind for event in client.pictures("mock", "a star", **settings)] == ["result"] * 2


def shape(event):
    return None if event.image is None else event.image.shape


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("[INVALID_ARG] no", InvalidRequest),
        ("[CANCELLED] no", Cancelled),
        ("[DEADLINE_EXCEEDED] no", TimedOut),
        ("[UNAVAILABLE] no", ServerUnavailable),
        ("[INTERNAL] no", RequestFailed),
    ],
)
def test_both_clients_raise_the_type_of_a_server_error(server, client, text, kind):
    raised = []
    for call in (
        lambda: client.pictures("mock", text),
        lambda: asyncio.run(AsyncClient(server.grpc_url).pictures("mock", text)),
    ):
        with pytest.raises(ClientError) as info:
            call()
        raised.append((type(info.value), str(info.value)))
    where = f"{server.grpc_url}: " if kind is ServerUnavailable else ""
    assert raised == [(kind, f"{where}no")] * 2


def test_threads_share_a_client(client):
    def draw(seed):
        return client.pictures("mock", "a star", steps=3, seed=seed)[0].seed

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(draw, range(100))) == list(range(100))
