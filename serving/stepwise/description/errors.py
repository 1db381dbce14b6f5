"""The errors of a request.

RequestError
├── InvalidRequest    a setting or tensor is not allowed
├── Unavailable       the server cannot accept the request now; a later try may succeed
├── Cancelled         the client cancelled the request
├── Expired           the request's deadline has passed
└── ModelFailed       a model behind the pipeline returned an error
"""


class RequestError(Exception):
    """An error response to a request; ``code`` is the gRPC status code."""

    code = "INTERNAL"


class InvalidRequest(RequestError):
    """A setting or tensor of the request is not allowed."""

    code = "INVALID_ARG"


class Unavailable(RequestError):
    """The server cannot accept the request now."""

    code = "UNAVAILABLE"


def stopping() -> Unavailable:
    """The error of a server that accepts no more work."""
    return Unavailable("the server is stopping; try again after it restarts")


class Cancelled(RequestError):
    """The client cancelled the request."""

    code = "CANCELLED"


class Expired(RequestError):
    """The request's deadline has passed."""

    code = "DEADLINE_EXCEEDED"


class ModelFailed(RequestError):
    """A model behind the pipeline returned an error."""
