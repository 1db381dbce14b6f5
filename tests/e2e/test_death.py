"""When a model's process dies, readiness turns off and active requests end with an error."""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stepwise.client import Client, ServerUnavailable, failover
from tests.support.command import Command

# Time limit for the server to become unready.
SECONDS = 5

# The denoising thread fails at its third step, outside the denoiser's call.
BROKEN_LOOP = """
from stepwise.triton.pipeline import Pipeline

class TritonPythonModel(Pipeline):
    def initialize(self, args):
        super().initialize(args)
        self.left = 3
        self._batcher._tell = self.tell

    def tell(self, pictures):
        self.left -= 1
        if not self.left:
            raise ZeroDivisionError("out of steps")
"""


@contextmanager
def serving(repository: Path, temporary: Path) -> Iterator[Command]:
    command = Command(repository, temporary, "--no-restart")
    try:
        yield command
    finally:
        command.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """The client does not wait long for a server to come back."""
    monkeypatch.setattr(failover, "RECOVERY", 0.5)


def ends(command: Command, model: str) -> None:
    """Assert that the command ends by itself and names the dead model."""
    status, output = command.end()
    assert status == 1
    last = output.splitlines()[-1]
    assert last.startswith(f"The process of {model} died, which Triton neither reports"), output


@pytest.mark.parametrize("model", ["sd3", "sd3_transformer", "sd3_vae_decoder", "sd3_t5"])
def test_a_killed_model_process_ends_the_server_and_its_requests(repository, tmp_path, model):
    with serving(repository, tmp_path) as command:
        client = Client(command.grpc_url)
        client.pictures("sd3", "a red star", steps=1)
        # Long enough to be running when the process dies.
        events = client.generate("sd3", "a red star", steps=100, num_images=16)
        seed = next(events).seed
        command.stub(model).kill()
        started = time.monotonic()
        while command.ready():
            assert time.monotonic() - started < SECONDS
            time.sleep(0.02)
        print(f"not ready after {time.monotonic() - started:.2f} s")
        with pytest.raises(ServerUnavailable, match=f"was lost.*seed={seed}") as error:
            list(events)
        print(f"{time.monotonic() - started:.1f} s: {error.value}")
        ends(command, model)


def test_the_death_of_the_denoising_thread_ends_the_server(repository, tmp_path):
    copy = Path(shutil.copytree(repository, tmp_path / "repository"))
    (copy / "sd3" / "1" / "model.py").write_text(BROKEN_LOOP)
    with serving(copy, tmp_path) as command:
        client, errors = Client(command.grpc_url, timeout=60), []

        def ask(steps: int) -> None:
            with pytest.raises(ServerUnavailable) as error:
                client.pictures("sd3", "a red star", steps=steps)
            errors.append(str(error.value))

        threads = [threading.Thread(target=ask, args=(steps,)) for steps in (10, 20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(errors)
        assert len(errors) == 2
        assert all("was lost" in error for error in errors)
        ends(command, "sd3")
        assert not command.ready()
