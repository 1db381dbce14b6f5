"""Starts a server again when it dies."""

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NoReturn

from stepwise.server.errors import PortTaken, TritonFailed
from stepwise.server.flags import Ports
from stepwise.server.process import Server

logger = logging.getLogger(__name__)

# So many deaths within a minute end the server: the next life would not be longer.
MOST_DEATHS, WITHIN_SECONDS = 3, 60.0

Start = Callable[[Ports], AbstractContextManager[Server]]


def supervise(
    start: Start,
    ports: Ports,
    ready: Callable[[Server], None],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> NoReturn:
    """Serve with ``start``, and again at the same ports when the server dies.

    Calls ``ready`` with each server that is. Raises the error of the first start, and TritonFailed
    at the third death within a minute. The first start after a death is immediate, the second
    within a minute comes a second later. A failed later start counts as a death.
    """
    deaths: deque[float] = deque(maxlen=MOST_DEATHS)
    lived = False
    while True:
        try:
            with start(ports) as server:
                lived, ports = True, server.settings.ports
                ready(server)
                server.wait()
        except (TritonFailed, PortTaken) as error:
            if not lived:
                raise
            deaths.append(clock())
            recent = sum(deaths[-1] - death < WITHIN_SECONDS for death in deaths)
            if recent == MOST_DEATHS:
                tail = error.log_tail if isinstance(error, TritonFailed) else ""
                raise TritonFailed(
                    f"{error} It is not started again: this was death {recent} within "
                    f"{WITHIN_SECONDS:.0f} s.",
                    tail,
                ) from error
            logger.error("%s Starting again.", error)
            sleep(recent - 1)
