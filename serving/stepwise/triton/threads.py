"""Threads of the models."""

import threading
from concurrent.futures import ThreadPoolExecutor


def started(count: int, name: str) -> ThreadPoolExecutor:
    """A pool with all of its threads, so that their number does not depend on the load."""
    pool, barrier = ThreadPoolExecutor(count, name), threading.Barrier(count)
    list(pool.map(lambda _: barrier.wait(), range(count)))
    return pool
