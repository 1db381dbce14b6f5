"""``stepwise serve`` as users run it, in a process of its own that tests may kill."""

import os
import re
import secrets
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import psutil

from tests.support.paths import ROOT, STEPWISE

SHARED_MEMORY = Path("/dev/shm")


class Command:
    """A running ``stepwise serve`` with its addresses.

    ``temporary`` gets its temporary folder and its output.
    """

    def __init__(self, repository: Path, temporary: Path, *options: str) -> None:
        ports = dict.fromkeys(("grpc", "http", "metrics"), 0)
        ports |= dict(re.findall(r"--(\w+)-port=(\d+)", " ".join(options)))
        self._output = temporary / f"output-{secrets.token_hex(4)}"
        with self._output.open("w") as sink:
            self.process = subprocess.Popen(
                [STEPWISE, "serve", "--repository", str(repository), *options]
                + [f"--{name}-port={port}" for name, port in ports.items()],
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(temporary)},
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        while "metrics" not in self.output:
            assert self.process.poll() is None, self.output
            time.sleep(0.05)
        urls = dict(re.findall(r"(\w+) +(?:http://)?(\S+:\d+)", self.output))
        self.grpc_url, self.http_url = urls["gRPC"], f"http://{urls['HTTP']}"
        self.ports = [
            f"--{name}-port={urls[key].rpartition(':')[2]}"
            for name, key in (("grpc", "gRPC"), ("http", "HTTP"), ("metrics", "metrics"))
        ]

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def triton(self) -> psutil.Process:
        """The process of Triton, once there is one."""
        while True:
            for child in psutil.Process(self.process.pid).children():
                # Until Triton has started, the child runs setpriv.
                if child.name() == "tritonserver":
                    return child
            time.sleep(0.01)

    @property
    def shm_prefix(self) -> str:
        found = re.search(r"shm-region-prefix-name=(\S+)", " ".join(self.triton.cmdline()))
        assert found is not None
        return found[1]

    def stub(self, model: str) -> psutil.Process:
        """The process of a model."""
        stubs = self.triton.children()
        return next(s for s in stubs if any(f"/{model}/1/" in word for word in s.cmdline()))

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.http_url}/v2/health/ready", timeout=1):
                return True
        except OSError:
            return False

    def end(self, within: float = 30.0) -> tuple[int, str]:
        """Wait for the command's end; its exit status and output."""
        return self.process.wait(within), self.output

    def close(self) -> None:
        """Stop the command at once, if it runs."""
        for _ in range(2):
            self.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        self.process.wait(30)


def left(group: int, shm_prefix: str) -> list[str]:
    """The processes of a group that are not zombies, and the shared memory with a prefix."""
    found = [str(path) for path in SHARED_MEMORY.glob(f"{shm_prefix}*")]
    for process in psutil.process_iter(["name", "status"]):
        try:
            same = os.getpgid(process.pid) == group
        except ProcessLookupError:
            continue
        if same and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.info["name"])
    return found
