"""When a dead server is started again, and when not."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from stepwise.server.errors import NothingToServe, PortTaken, TritonFailed
from stepwise.server.flags import Ports
from stepwise.server.supervisor import supervise

CHOSEN = Ports(21_000, 21_001, 21_002)


class Lives:
    """Servers that live for given seconds of a clock, or fail to start with a given error."""

    def __init__(self, *lives):
        self.lives, self.now = list(lives), 0.0
        self.asked, self.ready, self.pauses = [], [], []

    @contextmanager
    def start(self, ports):
        self.asked.append(ports)
        life = self.lives.pop(0)
        if isinstance(life, Exception):
            raise life
        yield SimpleNamespace(
            settings=SimpleNamespace(ports=CHOSEN), wait=lambda: self.die(life), life=life
        )

    def die(self, seconds):
        self.now += seconds
        raise TritonFailed("It died.", "the log")

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds

    def run(self):
        supervise(self.start, Ports(0, 0, 0), self.ready.append, self.sleep, lambda: self.now)


def test_a_server_starts_again_at_the_same_ports():
    lives = Lives(100.0, 100.0, KeyError("the end"))
    with pytest.raises(KeyError):
        lives.run()
    assert lives.asked == [Ports(0, 0, 0), CHOSEN, CHOSEN]
    assert [server.life for server in lives.ready] == [100.0, 100.0]
    assert lives.pauses == [0, 0]


@pytest.mark.parametrize(
    "error", [TritonFailed("cannot load", ""), PortTaken("taken"), NothingToServe("none")]
)
def test_the_error_of_the_first_start_is_raised(error):
    lives = Lives(error)
    with pytest.raises(type(error)) as raised:
        lives.run()
    assert raised.value is error
    assert lives.pauses == []


@pytest.mark.parametrize("last", [1.0, TritonFailed("It died.", "the log"), PortTaken("It died.")])
def test_the_third_death_within_a_minute_ends_it(last):
    lives = Lives(1000.0, 5.0, last)
    with pytest.raises(TritonFailed) as raised:
        lives.run()
    assert str(raised.value) == ("It died. It is not started again: this was death 3 within 60 s.")
    assert raised.value.log_tail == ("" if isinstance(last, PortTaken) else "the log")
    assert lives.pauses == [0, 1]


@pytest.mark.parametrize(("between", "ends"), [(28.0, True), (30.0, False)])
def test_deaths_count_for_a_minute(between, ends):
    lives = Lives(*[between] * 10, KeyError("the end"))
    with pytest.raises(TritonFailed if ends else KeyError):
        lives.run()
    print(lives.pauses)
    assert len(lives.asked) == (3 if ends else 11)
