"""Notices the death of a model's process, which Triton 24.10 does not.

Of a killed stub Triton tells nobody: ``/v2/health/ready`` stays 200, the process stays a zombie and
is never started again, later requests are refused (``Stub process ... is not healthy``), and one
that was running in ``denoise`` or ``decode`` is never answered.
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
    """Call ``report`` with the name of the first model whose process ends in this context.

    ``triton`` is the process id of a tritonserver with all its models loaded. ``report`` is called
    at most once, from a thread, and the context waits for it.
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
    """The process of each Python model: a stub, whose first argument is the model's file."""
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
