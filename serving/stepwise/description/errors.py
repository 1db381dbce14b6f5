"""What can go wrong with a request.

RequestError
├── InvalidRequest    the request asks for something that is not allowed
├── Unavailable       the server cannot take it now; a later try may succeed
├── Cancelled         the caller does not want the answer any more
├── Expired           its deadline has passed
└── ModelFailed       a model behind the pipeline answered with an error
"""


class RequestError(Exception):
    """A request that is answered with an error; ``code`` is that of gRPC."""

    code = "INTERNAL"


class InvalidRequest(RequestError):
    """The request asks for something that is not allowed."""

    code = "INVALID_ARG"


class Unavailable(RequestError):
    """The server cannot take the request now."""

    code = "UNAVAILABLE"


class Cancelled(RequestError):
    """The caller does not want the answer any more."""

    code = "CANCELLED"


class Expired(RequestError):
    """The request's deadline has passed."""

    code = "DEADLINE_EXCEEDED"


class ModelFailed(RequestError):
    """A model behind the pipeline answered with an error."""
