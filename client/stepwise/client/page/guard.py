"""Refuses requests to the page that other sites make with the visitor's browser."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

HOSTS = ("127.0.0.1", "localhost", "[::1]")

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


class Guard:
    """ASGI middleware that passes on requests to this machine by name, from the page itself.

    A foreign ``Host`` is another site's name that resolves to this machine (DNS rebinding); a
    foreign ``Origin`` is a form or script of another site. Both get status 403.
    """

    def __init__(self, app: _App) -> None:
        self._app = app

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer the request or pass it on."""
        problem = _problem(scope) if scope["type"] in ("http", "websocket") else ""
        if problem:
            await _refuse(problem, send)
        else:
            await self._app(scope, receive, send)


def _problem(scope: _Scope) -> str:
    """The reason for a refusal, "" if there is none."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    host, origin = headers.get("host", ""), headers.get("origin")
    if _name(host) not in HOSTS:
        return f"Host: got {host!r}; allowed are {', '.join(HOSTS)}, with any port"
    if origin is not None and origin != f"http://{host}":
        return f"Origin: got {origin!r}; allowed is the page's own, http://{host}"
    return ""


def _name(host: str) -> str:
    """The host without its port."""
    name, _, port = host.rpartition(":")
    return name if name and port.isdigit() else host


async def _refuse(problem: str, send: _Send) -> None:
    body = problem.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
