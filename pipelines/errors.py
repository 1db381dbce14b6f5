"""What can go wrong with a request.

RequestError
├── InvalidRequest    the request asks for something that is not allowed
├── Unavailable       the server cannot take it now; a later try may succeed
└── ModelFailed       a model behind the pipeline answered with an error
"""


class RequestError(Exception):
    """A request that is answered with an error; ``code`` names Triton's error code."""

    code = "INTERNAL"


class InvalidRequest(RequestError):
    """The request asks for something that is not allowed."""

    code = "INVALID_ARG"


class Unavailable(RequestError):
    """The server cannot take the request now."""

    code = "UNAVAILABLE"


class ModelFailed(RequestError):
    """A model behind the pipeline answered with an error."""
