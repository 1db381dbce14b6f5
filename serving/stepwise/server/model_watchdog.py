"""Detects the death of a model's process, which Triton 24.10 does not report.

After a stub is killed, ``/v2/health/ready`` still returns 200, and the stub stays a zombie that
Triton never restarts. Triton refuses later requests (``Stub process ... is not healthy``), and a
request that was running in ``denoise`` or ``decode`` never gets a response.
"""

import os
import select
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil


@contextmanager
def watching(triton: int, report: Callable[[str], None]) -> Iterator[None]:
    """Call ``report`` with the model's name when a model's process ends within this context.

    ``triton`` is the process ID of a tritonserver that has loaded all its models. A thread calls
    ``report`` at most once, and the context waits for it.
    """
    with ExitStack() as stack:
        models = {os.pidfd_open(process): name for process, name in _models(triton).items()}
        stopped, stop = os.pipe()
        for descriptor in (*models, stopped):
            stack.callback(os.close, descriptor)
        thread = threading.Thread(target=_watch, args=(models, stopped, report), daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(os.close, stop)
        yield


def _models(triton: int) -> dict[int, str]:
    """Each stub process, mapped to its model's name from its first argument, the model's file."""
    stubs = {stub.pid: stub.cmdline() for stub in psutil.Process(triton).children()}
    return {
        process: Path(words[1]).parent.parent.name for process, words in stubs.items() if words[1:]
    }


def _watch(models: Mapping[int, str], stopped: int, report: Callable[[str], None]) -> None:
    poll = select.poll()
    for descriptor in (*models, stopped):
        poll.register(descriptor, select.POLLIN)
    ended = {descriptor for descriptor, _ in poll.poll()}
    if stopped not in ended:
        report(models[ended.pop()])
