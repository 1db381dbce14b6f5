"""Python client of a Stepwise server. Stands alone: it learns each pipeline from the server."""

from client.client import Client
from client.errors import ClientError, InvalidRequest, RequestFailed, ServerUnavailable, TimedOut
from client.events import Event

__all__ = [
    "Client",
    "ClientError",
    "Event",
    "InvalidRequest",
    "RequestFailed",
    "ServerUnavailable",
    "TimedOut",
]
