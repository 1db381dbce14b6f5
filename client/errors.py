"""What can go wrong for a caller.

ClientError
├── InvalidRequest       the pipeline has no such setting, or the value is not allowed
├── ServerUnavailable    nobody answers, the pipeline is not served, or the server is stopping
├── TimedOut             no complete answer within the caller's or the request's time
└── RequestFailed        the server failed on this request
"""

from tritonclient.utils import InferenceServerException


class ClientError(Exception):
    """A call that gave no picture; the message says why and what to do."""


class InvalidRequest(ClientError):
    """The pipeline has no such setting, or the value is not allowed."""


class ServerUnavailable(ClientError):
    """Nobody answers at this address, the pipeline is not served there, or the server stops."""


class TimedOut(ClientError):
    """No complete answer within the caller's or the request's time."""


class RequestFailed(ClientError):
    """The server failed on this request."""


# By gRPC status, by the code in the text of a streamed error, and by Triton's own words.
_KINDS: dict[str, type[ClientError]] = {
    "StatusCode.INVALID_ARGUMENT": InvalidRequest,
    "StatusCode.NOT_FOUND": ServerUnavailable,
    "StatusCode.UNAVAILABLE": ServerUnavailable,
    "StatusCode.DEADLINE_EXCEEDED": TimedOut,
    "[INVALID_ARG]": InvalidRequest,
    "[UNAVAILABLE]": ServerUnavailable,
    "[INTERNAL]": RequestFailed,
    "Request for unknown model": ServerUnavailable,
}


def typed(error: InferenceServerException, url: str) -> ClientError:
    """The error of ours that Triton's stands for, with the server's own sentence."""
    status, message = str(error.status()), error.message()
    mark = next((mark for mark in _KINDS if mark == status or mark in message), "")
    kind = _KINDS.get(mark, RequestFailed)
    if mark.startswith("["):
        message = message.partition(mark)[2].strip()
    if kind is ServerUnavailable:
        message = f"{url}: {message}; is the server running (python -m server)?"
    return kind(message)
