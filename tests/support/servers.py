"""Helpers for mock servers: kill one, and list or await the end of its active requests."""

import time
from contextlib import contextmanager, suppress

from stepwise.client import Client
from stepwise.server.errors import TritonFailed
from stepwise.server.process import serving

FREED_SECONDS = 5.0


@contextmanager
def dying(repository, grpc_port=0):
    """A server that is killed, not drained, at the end of the context."""
    # ``serving`` may notice the death of a model's process first, and raise.
    with suppress(OSError, TritonFailed), serving(repository, grpc_port) as running:
        yield running
        running.process.kill()
        running.process.wait()


def running(server):
    """The ids of the server's active requests."""
    client = Client(server.grpc_url)
    return client.pictures("mock", "status")[0].notes + client.video("film", "status").notes


def assert_freed(server):
    deadline = time.monotonic() + FREED_SECONDS
    while left := running(server):
        assert time.monotonic() < deadline, f"the server still works on {left}"
        time.sleep(0.02)
