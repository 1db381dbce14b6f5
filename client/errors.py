"""What can go wrong for a caller.

ClientError
├── InvalidSetting       the pipeline has no such setting, or the value has another type
├── ServerUnavailable    nobody answers at this address, or the pipeline is not served there
└── RequestFailed        the server answered this request with an error
"""


class ClientError(Exception):
    """A call that gave no picture; the message says why and what to do."""


class InvalidSetting(ClientError):
    """The pipeline has no such setting, or the value has another type."""


class ServerUnavailable(ClientError):
    """Nobody answers at this address, or the pipeline is not served there."""


class RequestFailed(ClientError):
    """The server answered this request with an error."""
