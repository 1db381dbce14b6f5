"""Servers that answer as Stepwise does: what they work on, and how they die."""

import time
from contextlib import contextmanager, suppress

from stepwise.client import Client
from stepwise.server.errors import TritonFailed
from stepwise.server.process import serving

FREED_SECONDS = 5.0


@contextmanager
def dying(repository, grpc_port=0):
    """A server that is dead after the context, without a drain."""
    # Whoever watches a model may notice first that its process died.
    with suppress(OSError, TritonFailed), serving(repository, grpc_port) as running:
        yield running
        running.process.kill()
        running.process.wait()


def running(server):
    """The ids of the requests that the server works on."""
    client = Client(server.grpc_url)
    return client.pictures("mock", "status")[0].notes + client.video("film", "status").notes


def assert_freed(server):
    deadline = time.monotonic() + FREED_SECONDS
    while left := running(server):
        assert time.monotonic() < deadline, f"the server still works on {left}"
        time.sleep(0.02)
