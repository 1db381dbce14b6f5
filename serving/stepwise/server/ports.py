"""Free ports and taken ones."""

import random
import socket
from contextlib import ExitStack
from dataclasses import asdict

from stepwise.server.errors import PortTaken
from stepwise.server.flags import Ports

# Below the range from which Linux takes the ports of outgoing connections: one of those could
# occupy a chosen port in the seconds until Triton listens on it.
_FREE = range(20_000, 32_000)


def choose(ports: Ports, host: str) -> Ports:
    """Replace every 0 by a free port and check that the others are free.

    Raises ``PortTaken`` for a port that another process listens on, and for a ``host`` that is
    no address of this machine.
    """
    with ExitStack() as held:
        given = asdict(ports)
        return Ports(**{name: _bind(held, host, name, port) for name, port in given.items()})


def _bind(held: ExitStack, host: str, name: str, port: int) -> int:
    probe = held.enter_context(socket.socket())
    # Connections that linger after an earlier server do not count as taken.
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
