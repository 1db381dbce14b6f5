import grpc
import pytest

from stepwise.client.errors import Cancelled, InvalidRequest, RequestFailed, ServerUnavailable
from stepwise.client.failover import Attempts, Servers, abandoned


def no_channel(url, options):
    raise AssertionError(f"opened a channel to {url}")


def names(servers):
    return [server.url for server in servers]


def test_requests_alternate_and_open_no_channels_in_advance():
    servers = Servers("a:1, b:1,c:1", no_channel)
    assert [names(servers.round_robin()) for _ in range(4)] == [
        ["a:1", "b:1", "c:1"],
        ["b:1", "c:1", "a:1"],
        ["c:1", "a:1", "b:1"],
        ["a:1", "b:1", "c:1"],
    ]
    assert names(Servers(["a:1", "b:1"], no_channel).all) == ["a:1", "b:1"]


@pytest.fixture
def attempts():
    return Attempts(Servers("a:1,b:1", no_channel).all, None)


def test_a_server_that_refuses_is_tried_once_and_all_reasons_are_listed(attempts):
    asked = []
    for server in attempts:
        asked.append(server.url)
        with attempts.on(server):
            raise ServerUnavailable(f"{server.url}: full")
    assert asked == ["a:1", "b:1"]
    assert list(attempts) == []
    assert str(attempts.refusal()) == "no server took it:\n  a:1: full\n  b:1: full"


def test_a_single_reason_is_reported_unchanged():
    attempts = Attempts(Servers("a:1", no_channel).all, None)
    for server in attempts:
        with attempts.on(server):
            raise ServerUnavailable("a:1: full")
    assert str(attempts.refusal()) == "a:1: full"


def test_an_error_that_all_servers_share_is_raised_at_once(attempts):
    server = next(iter(attempts))
    with pytest.raises(InvalidRequest, match="steps"), attempts.on(server):
        raise InvalidRequest("steps: got 0")


def test_a_cancelled_call_starts_on_no_other_server(attempts):
    first, second = Servers("a:1,b:1", no_channel).all
    with attempts.on(first):
        assert attempts.cancel() is first
        raise ServerUnavailable("a:1: full")
    with pytest.raises(Cancelled, match="before it was started"), attempts.on(second):
        pytest.fail("tried on the second server")
    assert attempts.cancel() is None


def test_an_end_without_a_picture_is_an_error(attempts):
    with pytest.raises(RequestFailed, match="without a result"):
        attempts.end()


def test_a_stream_that_the_server_ended_is_not_cancelled():
    class Status(grpc.RpcError):
        def __init__(self, name):
            self.code = lambda: grpc.StatusCode[name]

    assert not abandoned(Status("UNAVAILABLE"))
    assert not abandoned(RequestFailed("server"))
    for left in (Status("DEADLINE_EXCEEDED"), GeneratorExit(), KeyboardInterrupt(), KeyError()):
        assert abandoned(left)
