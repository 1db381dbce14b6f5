"""What can go wrong while serving.

ServerError
├── NothingToServe    the repository holds no exported pipeline, or none of that name
├── OldExport         a pipeline or an engine was exported in another format
├── PortTaken         another process listens where the server was told to
└── TritonFailed      Triton could not start or died; carries the tail of its log
"""


class ServerError(Exception):
    """A sentence for the person who started the server: what is wrong and what to do."""


class NothingToServe(ServerError):
    """The repository holds no exported pipeline, or none of the name that was asked for."""


class OldExport(ServerError):
    """A pipeline or an engine was exported in another format than the one that is served."""


class PortTaken(ServerError):
    """Another process listens on a port that the server was told to use."""


class TritonFailed(ServerError):
    """Triton could not start, or died; ``log_tail`` holds the last lines that it wrote."""

    def __init__(self, reason: str, log_tail: str) -> None:
        super().__init__(reason)
        self.log_tail = log_tail
