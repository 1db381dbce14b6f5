"""Chooses free ports and checks requested ones."""

import random
import socket
from contextlib import ExitStack
from dataclasses import asdict

from stepwise.server.errors import PortTaken
from stepwise.server.flags import Ports

# Below Linux's range for outgoing connections, because one of those could occupy a chosen port in
# the seconds until Triton listens on it.
_FREE = range(20_000, 32_000)


def choose(ports: Ports, host: str) -> Ports:
    """Replace every 0 by a free port and check that the others are free.

    Raises ``PortTaken`` if another process listens on a port, or if ``host`` is not an address of
    this machine.
    """
    with ExitStack() as held:
        given = asdict(ports)
        return Ports(**{name: _bind(held, host, name, port) for name, port in given.items()})


def _bind(held: ExitStack, host: str, name: str, port: int) -> int:
    probe = held.enter_context(socket.socket())
    # Lingering connections of an earlier server do not make a port taken.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    candidates = [port] if port else random.sample(_FREE, 20)
    for candidate in candidates:
        try:
            probe.bind((host, candidate))
            probe.listen()
        except OSError as error:
            reason = error.strerror
        else:
            return candidate
    raise PortTaken(
        f"Cannot listen for {name} on {host}:{port} ({reason}): stop the process that uses the "
        f"port, or choose another with --{name}-port."
    )
