"""The client's errors.

ClientError
├── InvalidRequest       the pipeline has no such setting, or the value is not allowed
├── ServerUnavailable    no server answers or serves the pipeline, or it is full or stopping
│   └── NotServed        a server does not serve the pipeline; the next one may
├── TimedOut             no complete response before the client's or the request's deadline
├── Cancelled            the request was cancelled, by the client or on the server
└── RequestFailed        the server failed on this request
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


class TimedOut(ClientError):
    """No complete response before the client's or the request's deadline."""


class Cancelled(ClientError):
    """The request was cancelled, by the client or on the server."""


class RequestFailed(ClientError):
    """The server failed on this request."""


class _Kind(NamedTuple):
    error: type[ClientError]
    hint: str = ""


_HINT = "; is the server running (stepwise serve)?"

# By gRPC status. A client never reads the status of a stream that it cancelled itself, so CANCELLED
# comes from a server that is stopping.
_STATUSES = {
    "INVALID_ARGUMENT": _Kind(InvalidRequest),
    "NOT_FOUND": _Kind(NotServed, _HINT),
    "UNAVAILABLE": _Kind(ServerUnavailable, _HINT),
    "CANCELLED": _Kind(ServerUnavailable),
    "DEADLINE_EXCEEDED": _Kind(TimedOut),
}
# By a substring of a streamed error: our servers' codes and Triton's own text.
_MARKS = {
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
    return _error(_STATUSES.get(error.code().name, _OTHER), error.details(), url)


def of_text(message: str, url: str) -> ClientError:
    """The ClientError for a streamed error, with the server's own sentence."""
    mark = next((mark for mark in _MARKS if mark in message), "")
    if mark.startswith("["):
        message = message.partition(mark)[2].strip()
    return _error(_MARKS.get(mark, _OTHER), message, url)


def _error(kind: _Kind, sentence: str, url: str) -> ClientError:
    where = f"{url}: " if issubclass(kind.error, ServerUnavailable) else ""
    return kind.error(f"{where}{sentence}{kind.hint}")
