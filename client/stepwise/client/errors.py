"""The client's errors.

ClientError
├── InvalidRequest       the pipeline has no such setting, or the value is not allowed
├── ServerUnavailable    no server answers or serves the pipeline, or it is full or stopping
│   ├── NotServed        a server does not serve the pipeline; the next one may
│   └── Lost             a server was lost while it ran the request, which is sent once more
├── TimedOut             no complete response before the client's or the request's deadline
├── Cancelled            the request was cancelled, by the client or on the server
├── RequestFailed        the server failed on this request
└── OutputError          a file exists already, or cannot be written
"""

from typing import Any, NamedTuple


class ClientError(Exception):
    """A call failed; the message says why and what to do."""


class InvalidRequest(ClientError):
    """The pipeline has no such setting, or the value is not allowed."""


class ServerUnavailable(ClientError):
    """No server answers or serves the pipeline, or it is full or stopping."""


class NotServed(ServerUnavailable):
    """A server does not serve the pipeline; the next one may.

    If no server does, the caller gets InvalidRequest with the names of the pipelines.
    """


class Lost(ServerUnavailable):
    """A server was lost while it ran the request, which the client sends once more."""


class TimedOut(ClientError):
    """No complete response before the client's or the request's deadline."""


class Cancelled(ClientError):
    """The request was cancelled, by the client or on the server."""


class RequestFailed(ClientError):
    """The server failed on this request."""


class OutputError(ClientError):
    """A file exists already, or cannot be written."""


class _Kind(NamedTuple):
    error: type[ClientError]
    hint: str = ""


_HINT = "; is the server running (stepwise serve)?"

# By gRPC status. A client never reads the status of a stream that it cancelled itself, so CANCELLED
# comes from a server that is stopping.
_STATUSES = {
    "INVALID_ARGUMENT": _Kind(InvalidRequest),
    "NOT_FOUND": _Kind(NotServed, _HINT),
    "UNAVAILABLE": _Kind(Lost, _HINT),
    "CANCELLED": _Kind(Lost),
    "DEADLINE_EXCEEDED": _Kind(TimedOut),
    "UNAUTHENTICATED": _Kind(RequestFailed, "; check --header (headers=)"),
    "PERMISSION_DENIED": _Kind(RequestFailed, "; check --header (headers=)"),
}
# In gRPC's text if no server got the request; the last is a proxy's answer.
_UNREACHABLE = ("failed to connect", "DNS resolution failed", "http2 header with status")
# By a substring of gRPC's text: the sentence for a connection that could not be encrypted.
_CERTIFICATE = (
    "the server's certificate is not trusted here, or is not for this host: use the host's name, "
    "and name the file of your own authority in SSL_CERT_FILE"
)
_CONNECTIONS = {
    "CERTIFICATE_VERIFY_FAILED": _CERTIFICATE,
    "Hostname Verification Check failed": _CERTIFICATE,
    "WRONG_VERSION_NUMBER": (
        "the server does not speak TLS: give http://host:port, if the network is trusted"
    ),
}
# By a substring of a streamed error: our servers' codes and Triton's own text.
_MARKS = {
    "the server must restart": _Kind(Lost),
    "is not healthy": _Kind(Lost),
    "Server is stopping": _Kind(Lost),
    "[INVALID_ARG]": _Kind(InvalidRequest),
    "[UNAVAILABLE]": _Kind(ServerUnavailable),
    "[DEADLINE_EXCEEDED]": _Kind(TimedOut),
    "[CANCELLED]": _Kind(Cancelled),
    "[INTERNAL]": _Kind(RequestFailed),
    "Request for unknown model": _Kind(NotServed, _HINT),
}
_OTHER = _Kind(RequestFailed)


def of_status(error: Any, url: str) -> ClientError:
    """The ClientError for a ``grpc.RpcError`` of the server at ``url``."""
    text = error.details() or ""
    for mark, sentence in _CONNECTIONS.items():
        if mark in text:
            return ServerUnavailable(f"{url}: {sentence}")
    if any(mark in text for mark in _UNREACHABLE):
        return _error(_Kind(ServerUnavailable, _HINT), text, url)
    return _error(_STATUSES.get(error.code().name, _OTHER), text, url)


def of_text(message: str, url: str) -> ClientError:
    """The ClientError for a streamed error, with the server's own sentence."""
    marks = [mark for mark in _MARKS if mark in message]
    kind = _MARKS[marks[0]] if marks else _OTHER
    code = next((mark for mark in marks if mark.startswith("[")), "")
    if code:
        message = message.partition(code)[2].strip()
    return _error(kind, message, url)


def _error(kind: _Kind, sentence: str, url: str) -> ClientError:
    where = f"{url}: " if issubclass(kind.error, ServerUnavailable) else ""
    return kind.error(f"{where}{sentence}{kind.hint}")
