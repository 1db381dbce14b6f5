from types import SimpleNamespace

import grpc
import pytest

from stepwise.client.errors import (
    Cancelled,
    InvalidRequest,
    Lost,
    NotServed,
    RequestFailed,
    ServerUnavailable,
    TimedOut,
    of_status,
    of_text,
)


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("[INVALID_ARG] steps: got 0; allowed", InvalidRequest, "steps: got 0; allowed"),
        ("[CANCELLED] stopped at step 3", Cancelled, "stopped at step 3"),
        ("[DEADLINE_EXCEEDED] 500 ms have passed", TimedOut, "500 ms have passed"),
        ("[UNAVAILABLE] the queue is full", ServerUnavailable, "here:1: the queue is full"),
        ("[INTERNAL] it broke", RequestFailed, "it broke"),
        ("Stub process 'sd3_0_0' is not healthy.", Lost, "here:1: Stub process"),
        ("[request id: 7] Server is stopping, scheduler for model", Lost, "here:1: [request id"),
        ("[UNAVAILABLE] gone; the server must restart", Lost, "here:1: gone; the server must"),
        ("nobody knows", RequestFailed, "nobody knows"),
    ],
)
def test_a_streamed_error_keeps_the_servers_message(text, kind, says):
    error = of_text(text, "here:1")
    assert type(error) is kind
    assert str(error).startswith(says)


@pytest.mark.parametrize(
    ("status", "kind", "hint"),
    [
        (grpc.StatusCode.UNAVAILABLE, Lost, True),
        (grpc.StatusCode.NOT_FOUND, NotServed, True),
        (grpc.StatusCode.CANCELLED, Lost, False),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequest, False),
        (grpc.StatusCode.INTERNAL, RequestFailed, False),
    ],
)
def test_only_the_error_of_a_missing_server_has_the_hint(status, kind, hint):
    error = of_status(SimpleNamespace(code=lambda: status, details=lambda: "why"), "here:1")
    assert type(error) is kind
    assert ("is the server running" in str(error)) is hint
    assert str(error).startswith("here:1: why") is issubclass(kind, ServerUnavailable)


@pytest.mark.parametrize(
    "text",
    [
        "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:9",
        "DNS resolution failed for nowhere:1",
        "Received http2 header with status: 503",
    ],
)
def test_a_server_that_did_not_get_the_request_was_not_lost(text):
    status = SimpleNamespace(code=lambda: grpc.StatusCode.UNAVAILABLE, details=lambda: text)
    assert type(of_status(status, "here:1")) is ServerUnavailable


def test_a_model_that_a_server_lacks_may_be_on_the_next_one():
    error = of_text("Request for unknown model: 'sd3' has no available versions", "here:1")
    assert isinstance(error, NotServed)
    assert "is the server running" in str(error)
