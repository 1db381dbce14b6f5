import socket

import pytest

from stepwise.server.errors import PortTaken
from stepwise.server.flags import LOOPBACK, Ports
from stepwise.server.ports import choose


def test_zero_becomes_three_different_free_ports():
    chosen = choose(Ports(0, 0, 0), LOOPBACK)
    numbers = {chosen.grpc, chosen.http, chosen.metrics}
    assert len(numbers) == 3
    assert 0 not in numbers


def test_a_taken_port_is_named_with_its_flag():
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"metrics on 127.0.0.1:{port} .*--metrics-port"):
            choose(Ports(0, 0, port), LOOPBACK)


def test_the_same_port_twice_is_refused():
    free = choose(Ports(0, 0, 0), LOOPBACK).grpc
    with pytest.raises(PortTaken, match=f"http on 127.0.0.1:{free}"):
        choose(Ports(free, free, 0), LOOPBACK)


def test_a_foreign_address_is_refused():
    with pytest.raises(PortTaken, match=r"192\.0\.2\.1"):
        choose(Ports(0, 0, 0), "192.0.2.1")
