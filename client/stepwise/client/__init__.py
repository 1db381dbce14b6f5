"""Python client for Stepwise servers. Reads each pipeline's settings from the server."""

from stepwise.client.async_client import AsyncClient, AsyncEvents
from stepwise.client.client import Client, Events
from stepwise.client.errors import (
    Cancelled,
    ClientError,
    InvalidRequest,
    OutputError,
    RequestFailed,
    ServerUnavailable,
    TimedOut,
)
from stepwise.client.events import Event
from stepwise.client.protocol import About

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
    "OutputError",
    "RequestFailed",
    "ServerUnavailable",
    "TimedOut",
]
