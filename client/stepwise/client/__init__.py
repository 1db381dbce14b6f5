"""Python client of Stepwise servers. Stands alone: it learns each pipeline from the server."""

from client.aio import AsyncClient, AsyncEvents
from client.client import Client, Events
from client.errors import (
    Cancelled,
    ClientError,
    InvalidRequest,
    RequestFailed,
    ServerUnavailable,
    TimedOut,
)
from client.events import Event
from client.messages import About

__all__ = [
    "About",
    "AsyncClient",
    "AsyncEvents",
    "Cancelled",
    "Client",
    "ClientError",
    "Event",
    "Events",
    "InvalidRequest",
    "RequestFailed",
    "ServerUnavailable",
    "TimedOut",
]
