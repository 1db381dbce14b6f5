"""When a model's process dies, readiness turns off and active requests end with an error."""

import re
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from stepwise.client import Client, ClientError, ServerUnavailable
from tests.support.paths import ROOT, STEPWISE

# Time limit for the server to become unready: Triton's exit timeout, then it is killed.
SECONDS = 10

# The denoising thread fails at its third step, outside the denoiser's call.
BROKEN_LOOP = """
from stepwise.triton.denoise import Denoise

class TritonPythonModel(Denoise):
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
def command(repository: Path) -> Iterator[tuple[subprocess.Popen, dict[str, str]]]:
    """The process of ``stepwise serve`` and its addresses by name."""
    ports = ["--grpc-port=0", "--http-port=0", "--metrics-port=0"]
    process = subprocess.Popen(
        [STEPWISE, "serve", "--repository", str(repository), *ports],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        text = ""
        while "metrics" not in text:
            text += (line := process.stdout.readline())
            assert line, process.stderr.read()
        yield process, dict(re.findall(r"(\w+) +(\S+:\d+\S*)", text))
    finally:
        process.kill()
        process.communicate()


def stub(process: subprocess.Popen, model: str) -> psutil.Process:
    (triton,) = psutil.Process(process.pid).children()
    return next(s for s in triton.children() if any(f"/{model}/" in w for w in s.cmdline()))


def ready(http: str) -> bool:
    try:
        with urllib.request.urlopen(f"{http}/v2/health/ready", timeout=5):
            return True
    except OSError:
        return False


def ends(process: subprocess.Popen, model: str) -> None:
    """Assert that the command ends by itself and names the dead model."""
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    last = errors.splitlines()[-1]
    assert last.startswith(f"The process of {model} died"), errors
    assert "start the server again" in last


@pytest.mark.parametrize("model", ["sd3_denoise", "sd3_transformer", "sd3_decode", "sd3_prepare"])
def test_a_killed_model_process_ends_the_server_and_its_requests(repository, model):
    with command(repository) as (process, urls):
        client = Client(urls["gRPC"])
        client.pictures("sd3", "a red star", steps=1)
        # Long enough to be running when the process dies.
        events = client.generate("sd3", "a red star", steps=100, num_images=16)
        next(events)
        stub(process, model).kill()
        started = time.monotonic()
        while ready(urls["HTTP"]):
            assert time.monotonic() - started < SECONDS
            time.sleep(0.02)
        print(f"not ready after {time.monotonic() - started:.2f} s")
        with pytest.raises(ClientError) as error:
            list(events)
        seconds = time.monotonic() - started
        print(f"{seconds:.1f} s: {error.value}")
        assert any(
            said in str(error.value) for said in ("is the server running", "is stopping", model)
        )
        ends(process, model)


def test_the_death_of_the_denoising_thread_ends_the_server(repository, tmp_path):
    copy = Path(shutil.copytree(repository, tmp_path / "repository"))
    (copy / "sd3_denoise" / "1" / "model.py").write_text(BROKEN_LOOP)
    with command(copy) as (process, urls):
        client, errors = Client(urls["gRPC"], timeout=60), []

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
        assert any("denoising has stopped" in e and "out of steps" in e for e in errors)
        ends(process, "sd3_denoise")
        assert not ready(urls["HTTP"])
