"""The errors of serving.

ServerError
├── NothingToServe    the repository holds no exported pipeline, or none of that name
├── OldExport         a pipeline or an engine was exported in another format
├── PortTaken         another process listens on a requested port
└── TritonFailed      Triton could not start or died; carries the tail of its log
"""


class ServerError(Exception):
    """A problem of the server; its message names the problem and the remedy."""


class NothingToServe(ServerError):
    """The repository holds no exported pipeline, or none with the requested name."""


class OldExport(ServerError):
    """A pipeline or an engine was exported in a format that this version does not serve."""


class PortTaken(ServerError):
    """Another process listens on a requested port."""


class TritonFailed(ServerError):
    """Triton could not start, or died; ``log_tail`` holds the last lines of its log."""

    def __init__(self, reason: str, log_tail: str) -> None:
        super().__init__(reason)
        self.log_tail = log_tail
