"""What can go wrong for a caller.

ClientError
├── InvalidRequest       the pipeline has no such setting, or the value is not allowed
├── ServerUnavailable    nobody answers, the pipeline is not served, or the server is full or stops
├── TimedOut             no complete answer within the caller's or the request's time
├── Cancelled            the request was stopped, by its caller or on the server
└── RequestFailed        the server failed on this request
"""

from typing import Any, NamedTuple


class ClientError(Exception):
    """A call that gave no result; the message says why and what to do."""


class InvalidRequest(ClientError):
    """The pipeline has no such setting, or the value is not allowed."""


class ServerUnavailable(ClientError):
    """Nobody answers, the pipeline is not served there, or the server is full or stops."""


class TimedOut(ClientError):
    """No complete answer within the caller's or the request's time."""


class Cancelled(ClientError):
    """The request was stopped, by its caller or on the server."""


class RequestFailed(ClientError):
    """The server failed on this request."""


class _Kind(NamedTuple):
    error: type[ClientError]
    hint: str = ""


_NOT_THERE = _Kind(ServerUnavailable, "; is the server running (stepwise serve)?")

# By gRPC status. Nobody sees a stream end that they cancelled themselves, so a cancelled one was
# ended by a server that stops.
_STATUSES = {
    "INVALID_ARGUMENT": _Kind(InvalidRequest),
    "NOT_FOUND": _NOT_THERE,
    "UNAVAILABLE": _NOT_THERE,
    "CANCELLED": _Kind(ServerUnavailable),
    "DEADLINE_EXCEEDED": _Kind(TimedOut),
}
# By what the text of a streamed error has in it: our servers' codes and Triton's own words.
_MARKS = {
    "[INVALID_ARG]": _Kind(InvalidRequest),
    "[UNAVAILABLE]": _Kind(ServerUnavailable),
    "[DEADLINE_EXCEEDED]": _Kind(TimedOut),
    "[CANCELLED]": _Kind(Cancelled),
    "[INTERNAL]": _Kind(RequestFailed),
    "Request for unknown model": _NOT_THERE,
}
_OTHER = _Kind(RequestFailed)


def of_status(error: Any, url: str) -> ClientError:
    """The error of ours that a ``grpc.RpcError`` of the server at ``url`` stands for."""
    return _error(_STATUSES.get(error.code().name, _OTHER), error.details(), url)


def of_text(message: str, url: str) -> ClientError:
    """The error of ours that a streamed error stands for, with the server's own sentence."""
    mark = next((mark for mark in _MARKS if mark in message), "")
    if mark.startswith("["):
        message = message.partition(mark)[2].strip()
    return _error(_MARKS.get(mark, _OTHER), message, url)


def _error(kind: _Kind, sentence: str, url: str) -> ClientError:
    where = f"{url}: " if kind.error is ServerUnavailable else ""
    return kind.error(f"{where}{sentence}{kind.hint}")
