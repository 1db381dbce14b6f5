"""``stepwise serve`` starts again when a process dies or stops; requests are sent once more."""

import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest

from stepwise.client import Client, ServerUnavailable, failover
from stepwise.server.supervisor import MOST_DEATHS
from tests.support import mock_pipeline
from tests.support.command import Command, left

PROMPT = "a large red star in the top left on a white background"
# From a fault on, until the server says that it is not ready.
SECONDS = 5.0


@pytest.fixture
def start(tmp_path):
    """Starts ``stepwise serve``, and stops it at the end."""
    running = []

    def run(repository, *options):
        running.append(Command(repository, tmp_path, *options))
        return running[-1]

    yield run
    for command in running:
        if command.process.poll() is None:
            command.close()


def recovers(command, client, fault):
    """Assert that a request that a fault interrupts gets the picture that it gets without."""
    asked = {"steps": 40, "seed": 11}
    (due,) = client.pictures("sd3", PROMPT, **asked)
    events = client.generate("sd3", PROMPT, **asked)
    while next(events).step < 1:
        pass
    started = time.monotonic()
    fault()
    while command.ready():
        assert time.monotonic() - started < SECONDS
        time.sleep(0.02)
    unready = time.monotonic() - started
    *_, last = events
    print(f"not ready after {unready:.2f} s, picture after {time.monotonic() - started:.1f} s")
    assert last.kind == "result"
    assert np.array_equal(last.image, due.image)
    assert "was lost" in last.notes[-1]
    assert command.ready()


def test_dead_and_stopped_models_are_replaced(start, repository):
    command = start(repository)
    client = Client(command.grpc_url)
    before = command.triton.pid, command.shm_prefix
    recovers(command, client, lambda: command.stub("sd3").kill())
    assert left(*before) == []
    recovers(command, client, lambda: command.stub("sd3_transformer").send_signal(signal.SIGSTOP))
    assert "The process of sd3 died" in command.output
    assert "The process of sd3_transformer was stopped by a signal" in command.output


def test_dead_and_stopped_tritons_are_replaced(start, repository):
    command = start(repository)
    client = Client(command.grpc_url)
    recovers(command, client, lambda: command.triton.kill())
    recovers(command, client, lambda: command.triton.send_signal(signal.SIGSTOP))
    assert "Triton died with exit status -9. Starting again." in command.output
    assert "The process of tritonserver was stopped by a signal" in command.output


def test_nothing_is_left_when_the_command_is_killed(start, repository, tmp_path, monkeypatch):
    monkeypatch.setattr(failover, "RECOVERY", 0.5)
    command = start(repository)
    before, remover = (command.triton.pid, command.shm_prefix), shell(command)

    def ask(seed):
        with Client(command.grpc_url) as client:
            for event in client.generate("sd3", PROMPT, steps=100, seed=seed):
                begun.append(event)

    def lost(seed):
        with pytest.raises(ServerUnavailable) as error:
            ask(seed)
        return str(error.value)

    begun: list[object] = []
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lost, range(8))
        while len(begun) < 8:
            time.sleep(0.01)
        command.process.kill()
        deadline = time.monotonic() + 15
        while found := [*left(*before), *tmp_path.glob("stepwise-*")]:
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
        assert all("was lost" in answer for answer in answers)
    assert not remover.is_running() or remover.status() == psutil.STATUS_ZOMBIE
    again = start(repository, *command.ports)
    assert Client(again.grpc_url).pictures("sd3", PROMPT, steps=1)


def shell(command):
    """The process that removes what a killed command leaves."""
    return next(c for c in psutil.Process(command.process.pid).children() if c.name() == "sh")


@pytest.fixture(scope="module")
def mock(tmp_path_factory):
    return mock_pipeline.build(tmp_path_factory.mktemp("mock"))


def test_a_server_removes_what_an_earlier_one_left(start, mock, tmp_path):
    """Also after the death of everything that cleans up."""
    command = start(mock)
    before = command.triton.pid, command.shm_prefix
    shell(command).kill()
    # As if setpriv's signal came to nothing: Triton lives on without its parent.
    command.triton.send_signal(signal.SIGSTOP)
    command.process.kill()
    command.process.wait()
    stubs_alive = left(*before)
    folders = list(tmp_path.glob("stepwise-*"))
    print(f"left: {stubs_alive}, {folders}")
    assert len(folders) == 1
    assert any(name.startswith("/dev/shm/") for name in stubs_alive)
    assert "triton_python_backend_stub"[:15] in {name[:15] for name in stubs_alive}
    other = start(mock)
    deadline = time.monotonic() + 15
    while found := left(*before):
        assert time.monotonic() < deadline, found
    assert not folders[0].exists()
    assert other.ready()


def test_a_living_server_is_left_alone(start, mock, tmp_path):
    first = start(mock)
    second = start(mock)
    second.close()
    assert first.ready()
    assert len(list(tmp_path.glob("stepwise-*"))) == 1
    assert left(first.triton.pid, first.shm_prefix)


def test_a_server_that_keeps_dying_ends(start, mock):
    command = start(mock)
    lives = []
    for life in range(MOST_DEATHS):
        while command.output.count("Serving mock") == life:
            time.sleep(0.05)
        triton = command.triton
        lives.append(triton.pid)
        triton.kill()
        psutil.wait_procs([triton], 10)
    status, output = command.end()
    assert status == 1
    assert len(set(lives)) == MOST_DEATHS
    last = output.splitlines()[-1]
    assert last.startswith("Triton died with exit status -9. It is not started again: this was")
    assert output.count("Starting again.") == MOST_DEATHS - 1


def test_a_command_without_restart_ends_when_triton_dies(start, mock):
    command = start(mock, "--no-restart")
    before = command.triton.pid, command.shm_prefix
    command.triton.kill()
    status, output = command.end()
    assert status == 1
    assert output.splitlines()[-1] == "Triton died with exit status -9."
    assert "Started GRPCInferenceService" in output
    assert left(*before) == []


def test_a_taken_port_ends_the_first_start(start, mock, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(AssertionError, match=f"Cannot listen for http on 127.0.0.1:{port}"):
            start(mock, f"--http-port={port}")
