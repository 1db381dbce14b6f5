"""Both clients against servers that answer as Stepwise does: streams, their end, other servers."""

import asyncio
import gc
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from client import (
    AsyncClient,
    Cancelled,
    Client,
    ClientError,
    InvalidRequest,
    RequestFailed,
    ServerUnavailable,
    TimedOut,
    png,
)
from client.__main__ import main
from server.drain import drain
from server.process import serving
from tests.e2e import mock_events

PROJECT = Path(__file__).parents[2]
FREED_SECONDS = 5.0
MEMORY_CEILING = 8 << 20
THREADS_CEILING = 4


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    return mock_events.build(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module")
def server(repository):
    with serving(repository) as running:
        yield running


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A server whose queue has no place."""
    with serving(mock_events.build(tmp_path_factory.mktemp("full"), full=True)) as running:
        yield running


@contextmanager
def dying(repository, grpc_port=0):
    """A server that is dead after the context, without a drain."""
    with suppress(OSError), serving(repository, grpc_port) as running:
        yield running
        running.process.kill()
        running.process.wait()


@pytest.fixture
def doomed(repository):
    """A server to kill."""
    with dying(repository) as running:
        yield running


@pytest.fixture
def client(server):
    return Client(server.grpc_url)


def running(server):
    """The ids of the requests that the server works on."""
    return Client(server.grpc_url).pictures("mock", "status")[0].notes


def assert_freed(server):
    deadline = time.monotonic() + FREED_SECONDS
    while left := running(server):
        assert time.monotonic() < deadline, f"the server still works on {left}"
        time.sleep(0.02)


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
def test_a_request_that_is_left_is_stopped_on_the_server(server, client, leave):
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
def test_an_async_request_that_is_left_is_stopped_on_the_server(server, leave, caplog):
    asyncio.run(leave(AsyncClient(server.grpc_url)))
    assert_freed(server)
    assert not caplog.messages


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


def test_a_request_that_is_cancelled_before_it_starts_never_starts(client):
    events = client.generate("mock", "a star")
    events.cancel()
    with pytest.raises(Cancelled, match="before it was started"):
        next(events)


def test_a_server_that_cannot_be_told_is_an_error_of_cancel_alone(doomed):
    events = Client(doomed.grpc_url).generate("mock", "a star", steps=10_000)
    next(events)
    doomed.process.kill()
    doomed.process.wait()
    with pytest.raises(ServerUnavailable):
        events.cancel()
    events.close()


def test_both_clients_tell_the_same(server, client):
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
def test_an_error_of_the_server_has_its_type_in_both_clients(server, client, text, kind):
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


def test_requests_go_past_servers_that_are_away_or_full(server, full):
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


def test_requests_go_past_a_server_that_stops(server, doomed):
    client = Client([doomed.grpc_url, server.grpc_url])
    under_way = client.generate("mock", "a star", steps=20)
    next(under_way)
    drain(doomed.http_url, doomed.settings.key, ["mock"], limit=0)
    assert [client.pictures("mock", "a star", seed=n)[0].seed for n in range(4)] == [0, 1, 2, 3]
    assert list(under_way)[-1].kind == "result"


def test_when_no_server_takes_it_each_ones_reason_is_told(full):
    with pytest.raises(ServerUnavailable) as raised:
        Client(["127.0.0.1:9", full.grpc_url]).pictures("mock", "a star")
    first, away, no_place = str(raised.value).split("\n")
    assert first == "no server took it:"
    assert away.startswith("  127.0.0.1:9: ")
    assert away.endswith("is the server running (python -m server)?")
    assert no_place == f"  {full.grpc_url}: the queue is full: 256 requests wait; try again later"


def test_a_silent_host_is_gone_past(server):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent_url = f"127.0.0.1:{silent.getsockname()[1]}"
        client = Client([silent_url, server.grpc_url], timeout=15)
        assert client.pictures("mock", "a star", steps=1)


@pytest.mark.parametrize("index", [0, 1])
def test_a_request_whose_server_dies_is_not_silently_repeated(server, doomed, index):
    client = Client([doomed.grpc_url, server.grpc_url])
    events = client.generate("mock", "a star", steps=10_000, num_images=index + 1)
    seed = [next(events) for _ in range(index + 1)][-1].seed - index
    doomed.process.kill()
    with pytest.raises(ServerUnavailable, match=rf"lost at step \d+ of 10000.* seed={seed} for"):
        list(events)
    assert running(server) == ()
    for _ in range(4):
        assert client.pictures("mock", "a star", steps=1)


def test_an_async_request_whose_server_dies_is_not_silently_repeated(server, doomed):
    async def run():
        async for event in AsyncClient([doomed.grpc_url, server.grpc_url]).generate(
            "mock", "a star", steps=10_000, seed=5
        ):
            if event.step == 1:
                doomed.process.kill()

    with pytest.raises(ServerUnavailable, match=r"lost at step \d+ of 10000.* seed=5 for"):
        asyncio.run(run())


def test_a_server_that_comes_back_is_found_again(repository):
    with dying(repository) as first:
        client = Client(first.grpc_url)
        assert client.pictures("mock", "a star", steps=1)
    with pytest.raises(ServerUnavailable):
        client.pictures("mock", "a star", steps=1)
    with dying(repository, first.settings.ports.grpc):
        time.sleep(1.5)  # gRPC waits up to 1 s before it connects again
        assert client.pictures("mock", "a star", steps=1)


def test_threads_share_a_client(client):
    def draw(seed):
        return client.pictures("mock", "a star", steps=3, seed=seed)[0].seed

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(draw, range(100))) == list(range(100))


@contextmanager
def nothing_left():
    """Threads, open files and memory are afterwards what they were.

    gRPC's own threads come and go with the load, and are no threads of Python: the ceiling allows
    for a few, where one kept for every hundredth of a thousand requests would be ten.
    """
    process = psutil.Process()
    gc.collect()
    of_python, threads = threading.active_count(), process.num_threads()
    files, memory = process.num_fds(), process.memory_info().rss
    yield
    gc.collect()
    deadline = time.monotonic() + FREED_SECONDS
    while process.num_threads() > threads and time.monotonic() < deadline:
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
    """Every fifth request is left after its first event."""
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


def test_clients_that_are_gone_close_their_connections(server):
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


def test_the_command_writes_previews(server, tmp_path, capsys):
    options = ["--steps=6", "--preview-every=2", "--num-images=2", "--seed=3"]
    files = ["--output", str(tmp_path / "star.png"), "--previews", str(tmp_path / "previews")]
    assert main(["mock", "a star", "--url", server.grpc_url, *options, *files]) == 0
    told = capsys.readouterr()
    assert "star.png  seed 3  6 steps" in told.out
    assert " steps/s]" in told.err
    written = sorted(path.name for path in (tmp_path / "previews").iterdir())
    assert written == [f"star{mark}-step-00{step}.png" for mark in ("-1", "") for step in (2, 4)]
    preview = np.asarray(Image.open(tmp_path / "previews" / "star-step-004.png"))
    assert preview.shape == (2, 2, 3)
    assert preview.min() == 4
    assert "preview_every" not in png.load(tmp_path / "star-1.png")


def test_an_interrupted_command_stops_its_request(server, tmp_path):
    output = str(tmp_path / "none.png")
    options = ["--url", server.grpc_url, "--steps", "10000", "--output", output]
    command = subprocess.Popen(
        [sys.executable, "-m", "client", "mock", "a star", *options],
        cwd=PROJECT,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not running(server):
        time.sleep(0.05)
    command.send_signal(signal.SIGINT)
    _, errors = command.communicate(timeout=20)
    assert command.returncode == 130
    assert "cancelled; the server is told to stop" in errors
    assert "Traceback" not in errors
    assert_freed(server)
