"""Requests of every pipeline whose client leaves at a random moment, in every way that clients can.

The server has to live, free everything, and draw a control picture of each pipeline as before.
"""

import asyncio
import http.client
import json
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm
from tritonclient.grpc.aio import InferenceServerClient

from benchmarks.harness import raw_stream
from benchmarks.harness.leaks import settled
from benchmarks.harness.workload import PROMPTS
from stepwise.client import AsyncClient, Client, ClientError
from stepwise.families import FAMILIES
from stepwise.server.process import Server
from stepwise.server.repository import exported

LANES = 16
LATEST_SECONDS = 0.3
# As in ``cancels``, but several pipelines have some thirty model processes, which grow their shared
# memory by a megabyte each. Sockets and pipes of gRPC's pool vary like threads.
ALLOWED = {"requests": 0, "threads": 4, "descriptors": 8, "shared": 8 << 20}
WARM_UP = 150
# A request whose client left without a message ends at its next event.
BACKLOG_SECONDS = 30.0


@dataclass(frozen=True)
class Leaver:
    """A request and the seconds after which its client leaves."""

    server: Server
    pipeline: str
    settings: dict[str, Any]
    seconds: float


def measure(server: Server, count: int = 20_000) -> dict[str, Any]:
    """How the clients left, and the server's resources before and after."""
    controls = _controls(server)
    # A busy server creates threads, pools and shared memory that it keeps and reuses.
    asyncio.run(_leave_all(server, max(count // 10, WARM_UP), seed=1))
    before = settled(server, BACKLOG_SECONDS)
    ways = asyncio.run(_leave_all(server, count, seed=0))
    after = settled(server, BACKLOG_SECONDS)
    failures = [
        f"{name}: {getattr(before, name)} before, {getattr(after, name)} after"
        for name, allowed in ALLOWED.items()
        if getattr(after, name) > getattr(before, name) + allowed
    ]
    changed = [name for name, image in _controls(server).items() if (image != controls[name]).any()]
    failures += [f"{name}: the control picture changed" for name in changed]
    return {
        "requests": count,
        "ways": dict(sorted(ways.items())),
        "pipelines": sorted(controls),
        "before": asdict(before),
        "after": asdict(after),
        "failures": failures,
    }


def _settings(pipeline: str) -> dict[str, Any]:
    """A short request; SDXL-Turbo takes at most four steps."""
    settings: dict[str, Any] = {"prompt": PROMPTS[0], "steps": 4}
    family = FAMILIES[pipeline]
    if family.makes_videos:
        settings["frames"] = 5
    if family.image_encoder is not None:
        settings["start_image"] = np.full((64, 64, 3), 255, np.uint8)
    return settings


def _pipelines(server: Server) -> list[str]:
    return [pipeline.name for pipeline in exported(server.settings.repository)]


def _controls(server: Server) -> dict[str, Any]:
    client = Client(server.grpc_url)
    return {name: _pixels(client, name) for name in _pipelines(server)}


def _pixels(client: Client, pipeline: str) -> Any:
    settings = {**_settings(pipeline), "seed": 7}
    if FAMILIES[pipeline].makes_videos:
        return client.video(pipeline, **settings).frames
    return client.pictures(pipeline, **settings)[0].image


async def _leave_all(server: Server, count: int, seed: int) -> Counter[str]:
    chance, bar, names = random.Random(seed), tqdm(total=count), _pipelines(server)
    left, ways = iter(range(count)), Counter[str]()

    async def lane() -> None:
        for _ in left:
            way, name = chance.choice(list(WAYS)), chance.choice(names)
            seconds = chance.uniform(0, LATEST_SECONDS)
            await WAYS[way](Leaver(server, name, _settings(name), seconds))
            ways[way] += 1
            if server.process.poll() is not None:
                raise RuntimeError(f"the server ended after {sum(ways.values())} requests")
            bar.update()

    await asyncio.gather(*(lane() for _ in range(LANES)))
    bar.close()
    return ways


def _cancelled(leaver: Leaver) -> None:
    """Cancel the iterator of ``Client`` from another thread."""
    events = Client(leaver.server.grpc_url).generate(leaver.pipeline, **leaver.settings)
    timer = threading.Timer(leaver.seconds, events.cancel)
    timer.start()
    with suppress(ClientError):
        list(events)
    timer.join()


def _late(leaver: Leaver) -> None:
    """Let the timeout of ``Client`` pass."""
    client = Client(leaver.server.grpc_url, timeout=max(leaver.seconds, 1e-3))
    with suppress(ClientError):
        list(client.generate(leaver.pipeline, **leaver.settings))


async def _cancelled_task(leaver: Leaver) -> None:
    """Cancel the task that iterates over the events of ``AsyncClient``."""

    async def consume() -> None:
        async for _ in AsyncClient(leaver.server.grpc_url).generate(
            leaver.pipeline, **leaver.settings
        ):
            pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(leaver.seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _timed_out(leaver: Leaver) -> None:
    """Let the timeout of ``AsyncClient`` pass."""
    client = AsyncClient(leaver.server.grpc_url, timeout=max(leaver.seconds, 1e-3))
    with suppress(ClientError):
        async for _ in client.generate(leaver.pipeline, **leaver.settings):
            pass


async def _raw_call(leaver: Leaver) -> None:
    """Cancel a plain gRPC call, without a message to the server."""
    async with InferenceServerClient(leaver.server.grpc_url) as triton:
        asked = raw_stream.ask(triton, leaver.pipeline, leaver.settings, raw_stream.new_id())
        task = asyncio.create_task(asked)
        await asyncio.sleep(leaver.seconds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _http(leaver: Leaver) -> None:
    """Close the connection of an HTTP request."""
    host = leaver.server.http_url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=max(leaver.seconds, 1e-3))
    body = {k: v for k, v in leaver.settings.items() if not isinstance(v, np.ndarray)}
    path = f"/v2/models/{leaver.pipeline}/generate_stream"
    with closing(connection), suppress(OSError, http.client.HTTPException):
        connection.request("POST", path, json.dumps(body))
        connection.getresponse().read()


def _in_thread(leave: Callable[[Leaver], None]) -> Callable[[Leaver], Awaitable[None]]:
    return partial(asyncio.to_thread, leave)


WAYS: dict[str, Callable[[Leaver], Awaitable[None]]] = {
    "Client, cancelled": _in_thread(_cancelled),
    "Client, timeout": _in_thread(_late),
    "AsyncClient, task cancelled": _cancelled_task,
    "AsyncClient, timeout": _timed_out,
    "gRPC, call cancelled": _raw_call,
    "HTTP, connection closed": _in_thread(_http),
}
