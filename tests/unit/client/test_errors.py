from types import SimpleNamespace

import grpc
import pytest

from stepwise.client.errors import (
    Cancelled,
    InvalidRequest,
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
        ("in ensemble 'sd3', [CANCELLED] stopped at step 3", Cancelled, "stopped at step 3"),
        ("[DEADLINE_EXCEEDED] 500 ms have passed", TimedOut, "500 ms have passed"),
        ("[UNAVAILABLE] the queue is full", ServerUnavailable, "here:1: the queue is full"),
        ("[INTERNAL] it broke", RequestFailed, "it broke"),
        ("nobody knows", RequestFailed, "nobody knows"),
    ],
)
def test_a_streamed_error_keeps_the_servers_message(text, kind, says):
    error = of_text(text, "here:1")
    assert (type(error), str(error)) == (kind, says)


@pytest.mark.parametrize(
    ("status", "kind", "hint"),
    [
        (grpc.StatusCode.UNAVAILABLE, ServerUnavailable, True),
        (grpc.StatusCode.NOT_FOUND, NotServed, True),
        (grpc.StatusCode.CANCELLED, ServerUnavailable, False),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequest, False),
        (grpc.StatusCode.INTERNAL, RequestFailed, False),
    ],
)
def test_only_the_error_of_a_missing_server_has_the_hint(status, kind, hint):
    error = of_status(SimpleNamespace(code=lambda: status, details=lambda: "why"), "here:1")
    assert type(error) is kind
    assert ("is the server running" in str(error)) is hint
    assert str(error).startswith("here:1: why") is issubclass(kind, ServerUnavailable)


def test_a_model_that_a_server_lacks_may_be_on_the_next_one():
    error = of_text("Request for unknown model: 'sd3' has no available versions", "here:1")
    assert isinstance(error, NotServed)
    assert "is the server running" in str(error)
