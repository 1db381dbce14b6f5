"""Detects dead, stopped and stuck processes of a server, which Triton 24.10 does not report.

After a stub is killed, ``/v2/health/ready`` still returns 200, and the stub stays a zombie that
Triton never restarts. Triton refuses later requests (``Stub process ... is not healthy``), and a
request that was running never gets a response. While a stub is stopped
(SIGSTOP), readiness is true as well and every request waits.
"""

import os
import select
import threading
import time
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from stepwise.request.shared_state import overdue

TRITON = "tritonserver"
_POLL_SECONDS = 1.5
# Triton answers whether it is alive within milliseconds, also under load. A computer that swaps may
# need seconds.
_SILENT_SECONDS = 30.0
_LIVE_TIMEOUT = 5.0
_LONGEST_LOOK_SECONDS = 2 * (_POLL_SECONDS + _LIVE_TIMEOUT)


@dataclass(frozen=True)
class Watched:
    """A Triton to watch, which has loaded its models, and the state of its ``pipelines``."""

    triton: int
    http_url: str
    state: Path
    pipelines: Collection[str]


@contextmanager
def watching(server: Watched, report: Callable[[str], None]) -> Iterator[None]:
    """Call ``report`` with a sentence when a process of ``server`` becomes useless.

    That is when a model's process ends, when it or Triton is stopped, when Triton does not answer,
    or when a model waits for another one much longer than ever before. A thread calls ``report`` at
    most once within this context, which waits for it. The end of Triton itself is not reported.
    """
    with ExitStack() as stack:
        watched = models(server.triton)
        ends = {os.pidfd_open(process): name for process, name in watched.items()}
        stopped, stop = os.pipe()
        for descriptor in (*ends, stopped):
            stack.callback(os.close, descriptor)
        watch = _Watch(server, watched, ends, stopped, report)
        thread = threading.Thread(target=watch.run, name="health", daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(os.close, stop)
        yield


class _Watch:
    def __init__(
        self,
        server: Watched,
        models: Mapping[int, str],
        ends: Mapping[int, str],
        stopped: int,
        report: Callable[[str], None],
    ) -> None:
        self._server = server
        self._names = {**models, server.triton: TRITON}
        self._ends = ends
        self._stopped = stopped
        self._report = report
        self._looked = self._answered = time.monotonic()
        # Seconds in which this process was paused, and the models probably, too.
        self._paused = 0.0

    def run(self) -> None:
        poll = select.poll()
        for descriptor in (*self._ends, self._stopped):
            poll.register(descriptor, select.POLLIN)
        problem = None
        while problem is None:
            ended = {descriptor for descriptor, _ in poll.poll(1000 * _POLL_SECONDS)}
            if self._stopped in ended:
                return
            problem = self._died(ended) or self._is_stopped() or self._is_stuck()
        self._report(problem)

    def _died(self, ended: Collection[int]) -> str | None:
        names = [self._ends[descriptor] for descriptor in ended]
        return f"The process of {names[0]} died" if names else None

    def _is_stopped(self) -> str | None:
        found = [process for process in self._names if _state(process) == "T"]
        # A debugger stops a process for a moment.
        if found and all(_state(process) == "T" for process in found for _ in _moments()):
            return f"The process of {self._names[found[0]]} was stopped by a signal"
        return None

    def _is_stuck(self) -> str | None:
        server, now = self._server, time.monotonic()
        paused = max(0.0, now - self._looked - _LONGEST_LOOK_SECONDS)
        self._paused += paused
        self._answered += paused
        self._looked = now
        waiting = overdue(server.state, server.pipelines, now - self._paused)
        if waiting is not None:
            return f"{waiting} waited for another model much longer than ever before"
        if now - self._answered > _POLL_SECONDS and self._answers():
            self._answered = time.monotonic()
        if time.monotonic() - self._answered > _SILENT_SECONDS:
            return f"{TRITON} did not answer for {_SILENT_SECONDS:.0f} s"
        return None

    def _answers(self) -> bool:
        url = f"{self._server.http_url}/v2/health/live"
        try:
            with urllib.request.urlopen(url, timeout=_LIVE_TIMEOUT):
                return True
        except OSError:
            return False


def models(triton: int) -> dict[int, str]:
    """Each stub process, mapped to its model's name from its first argument, the model's file."""
    stubs = {stub.pid: stub.cmdline() for stub in psutil.Process(triton).children()}
    return {
        process: Path(words[1]).parent.parent.name for process, words in stubs.items() if words[1:]
    }


def _moments() -> Iterator[None]:
    for _ in range(4):
        time.sleep(0.25)
        yield


def _state(process: int) -> str:
    """The state of a process as Linux writes it: T is stopped by a signal; "" if it is gone."""
    try:
        line = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    return line.rpartition(")")[2].split()[0]
