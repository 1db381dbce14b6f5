"""A server's address, its connection, and the headers of all calls to it."""

import re
import ssl
import weakref
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2_grpc

from stepwise.client.errors import ClientError, InvalidRequest

# Names and values of headers, in the order given.
Headers = tuple[tuple[str, str], ...]

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Limits a connection attempt: if a host stays silent, the next server is tried.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    # Limits the delay until a restarted server is noticed; gRPC's default is 2 minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Pings a silent server during a call, so that a dead connection is noticed within 30 s. Servers
    # must permit it: stepwise.server.flags.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # gRPC 1.85 applies this in place of the line before: findings/grpc_keepalive_dead_peer.sh.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)
_HTTPS_PORT = 443
_SCHEMES = ("http", "https")
# gRPC's metadata: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
_HEADER_NAME = re.compile(r"[0-9a-z_.-]+")
_HEADER_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")
_BINARY, _RESERVED = "-bin", "grpc-"
_OWN_HEADERS = ("content-type", "host", "te", "user-agent")


class Server:
    """One address and its connection, closed by a method or when this object is collected.

    ``url`` is "host:port" or "http://host:port", or "https://host:port" with TLS. ``api`` is
    ``grpc`` or ``grpc.aio``. Raises InvalidRequest for another URL.
    """

    def __init__(self, url: str, api: Any, headers: Headers = ()) -> None:
        self.url = url
        self.closed = False
        self._target, self._secure = _target(url)
        self._api = api
        self._headers = headers

    def call(self, method: str, message: Any, timeout: float | None) -> Any:
        """Start a call of Triton; opens the connection in the event loop or process in use.

        Raises ClientError once the connection is closed.
        """
        self.require_open()
        return getattr(self._stub, method)(message, timeout=timeout, metadata=self._headers)

    def separate(self) -> "Server":
        """The same address with a connection of its own."""
        return Server(self.url, self._api, self._headers)

    def require_open(self) -> None:
        """Raise ClientError once the connection is closed."""
        if self.closed:
            raise ClientError("the client is closed; create another one for further calls")

    def close(self) -> None:
        """Close the connection of ``grpc``, and with it all its calls."""
        self.closed = True
        if "_channel" in vars(self):
            self._channel.close()

    async def aclose(self) -> None:
        """Close the connection of ``grpc.aio``, and with it all its calls."""
        self.closed = True
        if "_channel" in vars(self):
            await self._channel.close()

    @cached_property
    def _stub(self) -> Any:
        return service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    @cached_property
    def _channel(self) -> Any:
        if self._secure:
            credentials = grpc.ssl_channel_credentials(_root_certificates())
            channel = self._api.secure_channel(self._target, credentials, options=_OPTIONS)
        else:
            channel = self._api.insecure_channel(self._target, options=_OPTIONS)
        if not isinstance(channel, grpc.aio.Channel):  # closes itself
            weakref.finalize(self, channel.close)
        return channel


def headers(given: Mapping[str, str] | None) -> Headers:
    """Headers as gRPC sends them, with names in lower case.

    Raises InvalidRequest, without the value, for a header that gRPC does not send.
    """
    return tuple((_name(name), _value(name, value)) for name, value in (given or {}).items())


def _name(given: str) -> str:
    name = given.lower()
    if not _HEADER_NAME.fullmatch(name):
        raise InvalidRequest(
            f"header {given!r}: allowed in its name are letters, digits and the characters - _ ."
        )
    if name.endswith(_BINARY) or name.startswith(_RESERVED) or name in _OWN_HEADERS:
        raise InvalidRequest(
            f"header {given!r}: gRPC sets this header, or reads it as binary; give another name"
        )
    return name


def _value(name: str, value: str) -> str:
    if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
        raise InvalidRequest(
            f"header {name!r}: its value must be printable ASCII text, without space at its ends"
        )
    return value


def _target(url: str) -> tuple[str, bool]:
    """gRPC's name of the address, and whether to use TLS."""
    scheme, separator, _ = url.partition("://")
    if not separator or scheme.lower() not in _SCHEMES:
        return url, False
    secure = scheme.lower() == "https"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    port = port or (_HTTPS_PORT if secure else None)
    # The URL stays out of the error because it may hold a password.
    if not host or port is None or parts.username is not None or parts.path.strip("/"):
        raise InvalidRequest(
            f"url: got {scheme}://… with {_wrong(url)}; give {scheme}://host:port and nothing else"
        )
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}", secure


def _wrong(url: str) -> str:
    return "a user name" if "@" in url else "a path, or without host or port"


def _root_certificates() -> bytes | None:
    """The certificates that OpenSSL trusts here; None for those that gRPC brings.

    They are in the file or folder that SSL_CERT_FILE and SSL_CERT_DIR name, or the system's. gRPC
    for Python would use its own copy of Mozilla's list instead.
    """
    paths = ssl.get_default_verify_paths()
    if paths.cafile is not None:
        return Path(paths.cafile).read_bytes()
    folder = Path(paths.capath) if paths.capath is not None else None
    # OpenSSL finds a certificate in a folder by its hash.
    files = sorted(folder.glob("*.[0-9]")) if folder is not None else []
    return b"\n".join(file.read_bytes() for file in files) or None
