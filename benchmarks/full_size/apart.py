"""Runs a step in a process of its own, so that it has its own peak of memory."""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

Figures = dict[str, Any]


def apart(step: Callable[..., Figures], *arguments: Any) -> Figures:
    """The figures of ``step``, with its ``seconds`` and its ``peak`` of resident memory in bytes.

    Files that are mapped into the process count. Raises BrokenProcessPool if it was killed, which
    is what lack of memory does.
    """
    context = multiprocessing.get_context("forkserver")
    # Libraries are imported once, by the server that all processes are forked from.
    context.set_forkserver_preload([step.__module__])
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(_timed, step, *arguments).result()


def _timed(step: Callable[..., Figures], *arguments: Any) -> Figures:
    start = time.monotonic()
    figures = step(*arguments)
    return {**figures, "seconds": round(time.monotonic() - start, 1), "peak": _peak()}


def _peak() -> int:
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )
    return 1024 * int(line.split()[1])
