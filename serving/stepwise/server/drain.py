"""Lets running requests finish before Triton stops.

On shutdown Triton 24.10 refuses BLS calls within a second, so pictures being denoised would fail.
Unloading models through the model control API drains requests instead. Measured on a decoupled
Python model that responds from its own threads and makes BLS calls there:

- once the model is unloaded (10 ms), a new request fails at once with ``Request for unknown model:
  '<name>' has no available versions``, and running requests stream to their end;
- the repository index reports the model as UNLOADING until its last request is finished, but also
  while a client keeps the stream of its last request open, and forever after a request of a gRPC
  stream that Triton itself refused, for a wrong type or shape. Only the pipeline's own number of
  requests then shows their end.
"""

import json
import logging
import time
import urllib.request
from collections.abc import Collection
from pathlib import Path
from typing import Any

from stepwise.request.shared_state import working
from stepwise.server.flags import KEY_HEADER

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 60.0
_POLL_SECONDS = 0.05
_LOG_SECONDS = 2.0
# Longer than a request's way from Triton to its model, where nothing counts it.
_IDLE_SECONDS = 2.0


def drain(
    http_url: str,
    key: str,
    pipelines: Collection[str],
    state: Path,
    limit: float = DRAIN_SECONDS,
) -> None:
    """Refuse new requests to these pipelines and wait until running ones are finished.

    ``key`` is the key that Triton was started with, ``state`` the folder of its models. Waits at
    most ``limit`` seconds and then logs a warning if requests are still running. Raises ``OSError``
    if the server cannot be reached.
    """
    started = time.monotonic()
    for name in pipelines:
        _post(f"{http_url}/v2/repository/models/{name}/unload", key)
    logged, worked = False, started
    while busy := _unloading(http_url, key, pipelines):
        now = time.monotonic()
        waited = now - started
        if working(state, pipelines):
            worked = now
        elif now - worked > _IDLE_SECONDS:
            return
        if waited > limit:
            logger.warning(
                "stopping although requests are still running after %.0f s: %s", waited, busy
            )
            return
        if not logged and worked == now and waited > _LOG_SECONDS:
            logged = True
            logger.info("waiting up to %.0f s for running requests (Ctrl-C: stop now)", limit)
        time.sleep(_POLL_SECONDS)


def _unloading(http_url: str, key: str, models: Collection[str]) -> list[str]:
    return [
        model["name"]
        for model in _post(f"{http_url}/v2/repository/index", key)
        if model["name"] in models and model.get("state") == "UNLOADING"
    ]


def _post(url: str, key: str) -> Any:
    request = urllib.request.Request(url, b"{}", {KEY_HEADER: key}, method="POST")
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.loads(response.read() or b"null")
