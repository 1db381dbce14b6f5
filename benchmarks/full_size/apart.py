"""Runs a step in a separate process, to measure the step's own peak memory."""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

Figures = dict[str, Any]


def apart(step: Callable[..., Figures], *arguments: Any) -> Figures:
    """The figures of ``step``, with ``seconds`` and ``peak``, its peak resident memory in bytes.

    Memory-mapped files count. Raises BrokenProcessPool if the process was killed, for example for
    lack of memory.
    """
    context = multiprocessing.get_context("forkserver")
    # Imports libraries once, in the server that forks all processes.
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
