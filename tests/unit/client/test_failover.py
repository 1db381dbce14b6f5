import grpc
import pytest
from tritonclient.grpc import service_pb2
from tritonclient.grpc.model_config_pb2 import TYPE_INT64, TYPE_STRING, ModelConfig

from stepwise.client import failover
from stepwise.client.errors import (
    Cancelled,
    InvalidRequest,
    Lost,
    RequestFailed,
    ServerUnavailable,
)
from stepwise.client.events import Event
from stepwise.client.failover import Attempts, RequestAttempts, Servers, abandoned
from stepwise.client.protocol import Request


class NoChannel:
    """In place of ``grpc``."""

    def insecure_channel(self, target, options):
        raise AssertionError(f"opened a channel to {target}")


no_channel = NoChannel()


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


class Channel:
    """A server of which only the request is looked at."""

    url = "a:1"

    def __init__(self):
        self.closed, self.sent = False, []

    def call(self, method, messages, timeout):
        self.sent += list(messages)


INPUTS = {"prompt": TYPE_STRING, "seed": TYPE_INT64}
CONFIG = ModelConfig(
    input=[{"name": name, "data_type": kind, "dims": [1]} for name, kind in INPUTS.items()]
)


def sent_seed(channel):
    """The seed of the last request, None without one."""
    message = channel.sent[-1]
    names = [tensor.name for tensor in message.inputs]
    if "seed" not in names:
        return None
    return int.from_bytes(message.raw_input_contents[names.index("seed")], "little")


@pytest.fixture
def received(monkeypatch):
    """The next events that ``Attempts.event`` parses."""
    events = []
    monkeypatch.setattr(failover, "parse", lambda response: events.pop(0))
    return events


def read(attempts, channel):
    return attempts.event(channel, service_pb2.ModelStreamInferResponse())


def progress(step, seed=7):
    return Event("progress", 0, step, 20, seed, 1000.0, 0.0, 1.0, (), None)


def result(index):
    return Event("result", index, 20, 20, 7 + index, 0.0, 0.0, 1.0, ("a note",), None)


def requested(*channels):
    return RequestAttempts(channels, None, Request("sd3", {"prompt": "a star"}))


@pytest.mark.parametrize("step", [0, 1, 13])
def test_a_lost_request_is_sent_to_the_next_server_with_its_seed(received, step):
    first, second = Channel(), Channel()
    attempts = requested(first, second)
    received += [progress(step), progress(0)]
    with attempts.on(first):
        attempts.send(first, CONFIG)
        read(attempts, first)
        raise ServerUnavailable("a:1: connection lost")
    assert next(iter(attempts)) is second
    assert attempts.pause == 0
    with attempts.on(second):
        attempts.send(second, CONFIG)
        assert read(attempts, second).notes == ("a:1 was lost; the request was sent again",)
    assert (sent_seed(first), sent_seed(second)) == (None, 7)
    assert first.sent[0].id != second.sent[0].id


def test_a_request_that_was_sent_and_never_answered_is_sent_again():
    first = Channel()
    attempts = requested(first)
    with attempts.on(first):
        attempts.send(first, CONFIG)
        raise Lost("a:1: Socket closed")
    assert next(iter(attempts)) is first
    attempts.send(first, CONFIG)
    assert sent_seed(first) is None


def test_a_refused_request_is_not_sent_again():
    first = Channel()
    attempts = requested(first)
    with attempts.on(first):
        attempts.send(first, CONFIG)
        raise ServerUnavailable("a:1: the queue is full")
    assert list(attempts) == []
    assert attempts.pause == 0


def lose(attempts, channel):
    """One attempt: an event, then the connection is lost."""
    with attempts.on(channel):
        attempts.send(channel, CONFIG)
        read(attempts, channel)
        raise Lost("a:1: Socket closed")


def test_a_second_loss_is_the_error_and_has_the_seed(received):
    first = Channel()
    attempts = requested(first)
    received += [progress(3), progress(4)]
    lose(attempts, first)
    with pytest.raises(ServerUnavailable) as error:
        lose(attempts, first)
    assert str(error.value) == (
        "a:1: Socket closed\n  before, a:1 was lost; the request was sent again; send it again "
        "later, with seed=7 for the same result"
    )
    assert not isinstance(error.value, Lost)


def test_a_lost_server_is_awaited_but_not_for_ever(received, monkeypatch):
    now, tries = [0.0], []
    monkeypatch.setattr(failover.time, "monotonic", lambda: now[0])
    first = Channel()
    attempts = requested(first)
    received += [progress(1)]
    lose(attempts, first)

    def refuse_all():
        for server in attempts:
            now[0] += 0.1 + attempts.pause
            tries.append(server)
            with attempts.on(server):
                attempts.send(server, CONFIG)
                raise ServerUnavailable("a:1: refused")

    with pytest.raises(ServerUnavailable, match="refused\n.*seed=7"):
        refuse_all()
    print(f"{len(tries)} tries in {now[0]:.0f} s, limit {failover.RECOVERY:.0f} s")
    assert failover.RECOVERY < now[0] < failover.RECOVERY + 1
    assert len(tries) > 100


def test_results_are_not_repeated(received):
    first = Channel()
    attempts = requested(first)
    received += [result(0), result(2), *(result(index) for index in range(4))]
    with attempts.on(first):
        attempts.send(first, CONFIG)
        assert [read(attempts, first).index for _ in range(2)] == [0, 2]
        raise Lost("a:1: Socket closed")
    attempts.send(first, CONFIG)
    again = [read(attempts, first) for _ in range(4)]
    assert [event and event.index for event in again] == [None, 1, None, 3]
    assert sent_seed(first) == 7
    attempts.end()


def test_an_end_without_a_picture_is_an_error(received):
    attempts = requested(Channel())
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
