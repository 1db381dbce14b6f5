"""Letting running requests finish before Triton stops.

Told to stop, Triton 24.10 refuses BLS calls within a second, so a picture that is being denoised
would fail. Unloading the ensembles through the model control API is what drains: measured on an
ensemble around a decoupled Python model that answers from its own thread and makes BLS calls,

- the unload call returns within 10 ms, and from then on a new request is answered at once with
  ``Request for unknown model: '<name>' has no available versions``;
- requests that run keep streaming and every one of them gets its final response;
- the repository index says UNLOADING until the last of them is answered, then UNAVAILABLE.

A client that stops reading its stream keeps its request in flight, hence the limit.
"""

import json
import logging
import time
import urllib.request
from collections.abc import Collection
from typing import Any

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 60.0
_POLL_SECONDS = 0.05


def drain(http_url: str, pipelines: Collection[str], limit: float = DRAIN_SECONDS) -> None:
    """Refuse new requests to these pipelines and wait until running ones are answered.

    Waits ``limit`` seconds at most and logs which pipelines were still busy. Raises ``OSError`` if
    the server cannot be reached.
    """
    started = time.monotonic()
    for name in pipelines:
        _post(f"{http_url}/v2/repository/models/{name}/unload")
    told = False
    while busy := _unloading(http_url, pipelines):
        waited = time.monotonic() - started
        if waited > limit:
            logger.warning("stopping with requests to %s running after %.0f s", busy, waited)
            return
        if not told and waited > 1:
            told = True
            logger.info("waiting up to %.0f s for running requests (Ctrl-C: stop now)", limit)
        time.sleep(_POLL_SECONDS)


def _unloading(http_url: str, pipelines: Collection[str]) -> list[str]:
    index = _post(f"{http_url}/v2/repository/index")
    return [
        model["name"]
        for model in index
        if model["name"] in pipelines and model.get("state") == "UNLOADING"
    ]


def _post(url: str) -> Any:
    request = urllib.request.Request(url, data=b"{}", method="POST")
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.loads(response.read() or b"null")
