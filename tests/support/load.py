"""Builds outcomes of load runs, and a fake server without a network."""

import asyncio

from benchmarks.harness.load_generator import Mark, Outcome
from benchmarks.harness.workload import Ask
from stepwise.client import Event, RequestFailed

SIZE = (64, 64)
ASK = Ask("a small red star", SIZE, {"steps": 4})


def outcome(marks, scheduled=0.0, sent=0.0, done=1.0, error="", ask=ASK):
    """An outcome; each of ``marks`` is (seconds, step, mean batch)."""
    told = tuple(Mark(at, step, mean, 0.0) for at, step, mean in marks)
    return Outcome(ask, scheduled, sent, done, told, error, None)


def event(step, steps, kind="progress"):
    return Event(kind, 0, step, steps, 0, 1.0, 1.0, 1.0, (), None)


class Server:
    """Serves requests one at a time, ``seconds`` each, and fails requests with 0 steps."""

    def __init__(self, seconds=0.0):
        self.seconds, self.at_once, self.most_at_once = seconds, 0, 0
        self._lock = asyncio.Lock()

    async def send(self, ask):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            async with self._lock:
                await asyncio.sleep(self.seconds)
            if not ask.settings["steps"]:
                raise RequestFailed("no steps")
            yield event(1, 2)
            yield event(2, 2, "result")
        finally:
            self.at_once -= 1
