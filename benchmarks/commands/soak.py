"""Sends mixed requests for minutes, some cancelled, bad or late; checks responses and memory.

Each request must get exactly one response, and memory and threads must not grow. Sampled pictures
are compared with those of the same requests before the load.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm
from tritonclient.grpc.aio import InferenceServerClient

from benchmarks.harness import raw_stream
from benchmarks.harness.diffusers_baseline import Picture, psnr
from benchmarks.harness.leaks import Residue, growth, look, settled
from benchmarks.harness.raw_stream import Answers
from benchmarks.harness.workload import WORKLOADS, Ask, draw
from stepwise.description.manifest import Manifest
from stepwise.server.process import Server

LANES = 16
FLOOR_DB = 50.0
MOST_GROWTH = 0.02
# Share of the run in which memory pools and graphs meet their first large batches.
WARM_UP = 0.2
SAMPLES = 8
SAMPLE_SHARE = 0.05
LATEST_CANCEL_SECONDS = 1.0
LOOK_SECONDS = 2.0


@dataclass(frozen=True)
class Fate:
    """A kind of request: its share, its special settings and its allowed responses.

    ``variants`` are settings; each request takes one of them at random. ``codes`` are the allowed
    error codes; an empty one means a picture.
    """

    share: float
    codes: frozenset[str]
    variants: tuple[Mapping[str, Any], ...] = ({},)


FATES = {
    "answered": Fate(0.88, frozenset({""})),
    # The picture may be finished before the cancel arrives.
    "cancelled": Fate(0.05, frozenset({"CANCELLED", ""})),
    "bad": Fate(
        0.05,
        frozenset({"INVALID_ARG"}),
        ({"steps": 0}, {"sampler": "none"}, {"height": 33}, {"prompt": ""}, {"prompt": b"\xff"}),
    ),
    "expired": Fate(0.02, frozenset({"DEADLINE_EXCEEDED"}), ({"deadline_ms": 1},)),
}


@dataclass(frozen=True)
class Ending:
    """The end of a request: its fate, its responses, and its PSNR if it was sampled."""

    fate: str
    answers: Answers
    closeness: float | None

    @property
    def failure(self) -> str:
        """The failure as a sentence; empty if there is none."""
        if not self.answers.once:
            return f"{self.fate}: did not get exactly one response: {_shown(self.answers)}"
        if self.answers.code not in FATES[self.fate].codes:
            return f"{self.fate}: got {self.answers.code or 'a picture'}"
        if self.closeness is not None and self.closeness < FLOOR_DB:
            return f"{self.fate}: {self.closeness:.1f} dB from its solo run"
        return ""


def measure(server: Server, name: str, seconds: float) -> dict[str, Any]:
    """Counts by fate, the worst sample's PSNR, growth of memory and threads, and failures."""
    manifest = Manifest.read(server.settings.repository / name)
    return asyncio.run(Soak(server, name, manifest, seconds).run())


class Soak:
    """One soak of a running server."""

    def __init__(self, server: Server, name: str, manifest: Manifest, seconds: float) -> None:
        self._server, self._name, self._seconds = server, name, seconds
        self._samples = draw(WORKLOADS["mixed"], manifest.sides, SAMPLES, seed=0)
        self._asks = draw(WORKLOADS["mixed"], manifest.sides, 4096, seed=1)
        self._chance = random.Random(2)
        self._solo: list[Picture] = []
        self._endings: list[Ending] = []
        self._looks: list[tuple[float, Residue]] = []

    async def run(self) -> dict[str, Any]:
        """Make the solo pictures, run the load, return the figures."""
        async with InferenceServerClient(self._server.grpc_url) as triton:
            for sample in self._samples:
                self._solo.append((await self._send(triton, sample, {})).pictures[0])
            self._began = time.monotonic()
            watching = asyncio.create_task(self._watch())
            await asyncio.gather(*(self._lane(triton) for _ in range(LANES)))
            watching.cancel()
        return self._figures(settled(self._server))

    async def _lane(self, triton: InferenceServerClient) -> None:
        while time.monotonic() - self._began < self._seconds:
            fate = self._chance.choices(list(FATES), [f.share for f in FATES.values()])[0]
            sampled = fate == "answered" and self._chance.random() < SAMPLE_SHARE
            self._endings.append(
                await (self._sample(triton) if sampled else self._request(triton, fate))
            )

    async def _sample(self, triton: InferenceServerClient) -> Ending:
        index = self._chance.randrange(SAMPLES)
        answers = await self._send(triton, self._samples[index], {})
        closeness = psnr(answers.pictures[0], self._solo[index]) if answers.pictures else None
        return Ending("answered", answers, closeness)

    async def _request(self, triton: InferenceServerClient, fate: str) -> Ending:
        ask, variant = self._chance.choice(self._asks), self._chance.choice(FATES[fate].variants)
        if fate != "cancelled":
            return Ending(fate, await self._send(triton, ask, variant), None)
        request_id = raw_stream.new_id()
        sent = asyncio.create_task(self._send(triton, ask, variant, request_id))
        await asyncio.sleep(self._chance.uniform(0, LATEST_CANCEL_SECONDS))
        await raw_stream.cancel(triton, self._name, request_id)
        return Ending(fate, await sent, None)

    async def _send(
        self, triton: InferenceServerClient, ask: Ask, variant: Mapping[str, Any], id: str = ""
    ) -> Answers:
        settings = {"prompt": ask.prompt, **ask.settings, **variant}
        return await raw_stream.ask(triton, self._name, settings, id or raw_stream.new_id())

    async def _watch(self) -> None:
        with tqdm(total=round(self._seconds), unit="s") as bar:
            while True:
                bar.n = min(round(time.monotonic() - self._began), bar.total)
                bar.set_postfix(requests=len(self._endings))
                found = await asyncio.to_thread(look, self._server)
                self._looks.append((time.monotonic() - self._began, found))
                await asyncio.sleep(LOOK_SECONDS)

    def _figures(self, left: Residue) -> dict[str, Any]:
        warm = [found for at, found in self._looks if at >= WARM_UP * self._seconds]
        grown = {
            what: round(growth([getattr(found, what) for found in warm]), 4)
            for what in ("resident", "shared", "threads")
        }
        close = [end.closeness for end in self._endings if end.closeness is not None]
        failures = Counter(end.failure for end in self._endings if end.failure)
        failures.update(f"{what}: {by:+.1%}" for what, by in grown.items() if by > MOST_GROWTH)
        failures.update(["requests are still active after the run"] if left.requests else [])
        return {
            "seconds": round(self._seconds),
            "requests": len(self._endings),
            "distinct_ids": len({end.answers.request_id for end in self._endings}),
            "by_fate": {fate: self._codes(fate) for fate in FATES},
            "samples": len(close),
            "worst_sample_db": min(close) if np.isfinite(min(close)) else "identical",
            "megabytes_resident": [round(found.resident / 2**20) for found in warm],
            "growth_after_warm_up": grown,
            "left_behind": left.requests,
            "failures": dict(failures),
        }

    def _codes(self, fate: str) -> dict[str, int]:
        """The number of responses by code; a picture counts as OK."""
        return dict(Counter(e.answers.code or "OK" for e in self._endings if e.fate == fate))


def _shown(answers: Answers) -> str:
    return (
        f"{len(answers.pictures)} pictures, {answers.finals} final responses, "
        f"errors {answers.codes}, {answers.strangers} responses of other requests"
    )
