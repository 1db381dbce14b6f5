"""Lets running requests finish before Triton stops.

On shutdown Triton 24.10 refuses BLS calls within a second, so pictures being denoised would fail.
Unloading models through the model control API drains requests instead. Measured on an ensemble
around a decoupled Python model that responds from its own thread and makes BLS calls:

- once the ensemble is unloaded (10 ms), a new request fails at once with ``Request for unknown
  model: '<name>' has no available versions``, and running requests stream to their end;
- the repository index reports the ensemble as UNLOADING while a client keeps the stream of its last
  request open, answered or not, so this state does not show whether requests are running;
- a request holds every model of its ensemble until its final response. So ``<name>_prepare``,
  unloaded after the ensemble, stays UNLOADING until the last request is finished (and one second
  more, until its own process ends).
"""

import json
import logging
import re
import time
import urllib.request
from collections.abc import Collection
from typing import Any

from stepwise.server.flags import KEY_HEADER

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 60.0
_POLL_SECONDS = 0.05
_TELL_SECONDS = 2.0
_PICTURES = re.compile(r"^stepwise_(?:active|waiting)\{.*\} (\S+)$", re.MULTILINE)


def drain(
    http_url: str,
    metrics_url: str,
    key: str,
    pipelines: Collection[str],
    limit: float = DRAIN_SECONDS,
) -> None:
    """Refuse new requests to these pipelines and wait until running ones are finished.

    ``key`` is the key that Triton was started with. Waits at most ``limit`` seconds and then logs a
    warning if requests are still running. Raises ``OSError`` if the server cannot be reached.
    """
    started = time.monotonic()
    first_stages = [f"{name}_prepare" for name in pipelines]
    for model in (*pipelines, *first_stages):
        _post(f"{http_url}/v2/repository/models/{model}/unload", key)
    told = False
    while busy := _unloading(http_url, key, first_stages):
        waited = time.monotonic() - started
        if waited > limit:
            logger.warning(
                "stopping although requests are still running after %.0f s: %s", waited, busy
            )
            return
        if not told and waited > _TELL_SECONDS and _pictures(metrics_url):
            told = True
            logger.info("waiting up to %.0f s for running requests (Ctrl-C: stop now)", limit)
        time.sleep(_POLL_SECONDS)


def _pictures(metrics_url: str) -> float:
    """The number of running and waiting pictures.

    Even without any, many models take seconds to unload.
    """
    with urllib.request.urlopen(metrics_url, timeout=10) as response:
        page = response.read().decode()
    return sum(map(float, _PICTURES.findall(page)))


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
