"""Free ports and taken ones."""

import socket
from contextlib import ExitStack
from dataclasses import astuple, fields

from server.errors import PortTaken
from server.flags import Ports


def choose(ports: Ports, host: str) -> Ports:
    """Replace every 0 by a free port and check that the others are free.

    Raises ``PortTaken`` for a port that another process listens on, and for a ``host`` that is
    no address of this machine.
    """
    with ExitStack() as reserved:
        names = [field.name for field in fields(ports)]
        return Ports(
            *(
                _bind(reserved, host, name, port)
                for name, port in zip(names, astuple(ports), strict=True)
            )
        )


def _bind(reserved: ExitStack, host: str, name: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    probe = reserved.enter_context(socket.socket(family, socket.SOCK_STREAM))
    # Connections that linger after an earlier server do not count as taken.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind((host, port))
    except OSError as error:
        raise PortTaken(
            f"Cannot listen for {name} on {host}:{port} ({error.strerror}): stop the process "
            f"that uses the port, or choose another with --{name}-port."
        ) from error
    return int(probe.getsockname()[1])
