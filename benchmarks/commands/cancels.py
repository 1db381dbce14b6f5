"""Cancels a thousand requests at random moments and checks that the server frees all of them."""

import asyncio
import random
from collections import Counter
from dataclasses import asdict
from typing import Any

from tqdm import tqdm
from tritonclient.grpc.aio import InferenceServerClient

from benchmarks.harness import raw_stream
from benchmarks.harness.leaks import settled
from benchmarks.harness.raw_stream import Answers
from benchmarks.harness.workload import WORKLOADS, Ask, draw
from stepwise.description.manifest import Manifest
from stepwise.server.process import Server

LANES = 16
LATEST_SECONDS = 0.5
# Triton's Python backend allocates shared memory by the megabyte and keeps it. A new peak may add
# one megabyte and a few of gRPC's threads; a leak of a thousand requests would add many.
ALLOWED = {"requests": 0, "threads": 4, "shared": 1 << 20}


def measure(server: Server, name: str, count: int = 1000) -> dict[str, Any]:
    """The responses, and the server's memory, threads and requests before and after."""
    manifest = Manifest.read(server.settings.repository / name)
    asks = draw(WORKLOADS["mixed"], manifest.sides, count, seed=0)
    # Warm up: a busy server creates threads, pools and shared memory that later requests reuse.
    asyncio.run(_cancel_all(server.grpc_url, name, asks[: count // 4]))
    before = settled(server)
    answers = asyncio.run(_cancel_all(server.grpc_url, name, asks))
    after = settled(server)
    failures = [f"{a.code or 'a picture'} and more" for a in answers if not a.once]
    failures += [f"{code}" for a in answers if (code := a.code) not in ("CANCELLED", "")]
    for what, allowed in ALLOWED.items():
        if getattr(after, what) > getattr(before, what) + allowed:
            failures.append(f"{what}: {getattr(before, what)} before, {getattr(after, what)} after")
    return {
        "requests": count,
        "answers": dict(Counter(answer.code or "OK" for answer in answers)),
        "before": asdict(before),
        "after": asdict(after),
        "failures": failures,
    }


async def _cancel_all(url: str, name: str, asks: list[Ask]) -> list[Answers]:
    chance, waiting, bar = random.Random(0), iter(asks), tqdm(total=len(asks))

    async def lane(triton: InferenceServerClient) -> list[Answers]:
        done = []
        for ask in waiting:
            request_id = raw_stream.new_id()
            settings = {"prompt": ask.prompt, **ask.settings}
            sent = asyncio.create_task(raw_stream.ask(triton, name, settings, request_id))
            await asyncio.sleep(chance.uniform(0, LATEST_SECONDS))
            await raw_stream.cancel(triton, name, request_id)
            done.append(await sent)
            bar.update()
        return done

    async with InferenceServerClient(url) as triton:
        lanes = await asyncio.gather(*(lane(triton) for _ in range(LANES)))
    bar.close()
    return [answers for lane in lanes for answers in lane]
