"""Starts, monitors, drains and stops a tritonserver process."""

import logging
import os
import secrets
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from stepwise.server import installation, log, ports, repository
from stepwise.server.drain import drain
from stepwise.server.errors import TritonFailed
from stepwise.server.flags import LOOPBACK, Ports, Settings, arguments, environment
from stepwise.server.formats import refuse_old
from stepwise.server.installation import Installation
from stepwise.server.model_watchdog import watching

logger = logging.getLogger(__name__)

_SHARED_MEMORY = Path("/dev/shm")
_POLL_SECONDS = 0.05


@dataclass
class Server:
    """A running tritonserver.

    ``log`` is its log file. ``lost`` names the model that died, if Triton was stopped because of
    it.
    """

    process: subprocess.Popen[bytes]
    settings: Settings
    log: Path
    lost: str | None = None

    @property
    def grpc_url(self) -> str:
        """``host:port``, the form that tritonclient expects."""
        return f"{self.settings.host}:{self.settings.ports.grpc}"

    @property
    def http_url(self) -> str:
        """The root of the HTTP interface."""
        return f"http://{self.settings.host}:{self.settings.ports.http}"

    @property
    def metrics_url(self) -> str:
        """The URL that Prometheus scrapes."""
        return f"http://{self.settings.host}:{self.settings.ports.metrics}/metrics"

    @property
    def pid(self) -> int:
        """The process ID of tritonserver, which is also its process group's ID."""
        return self.process.pid

    def wait(self) -> None:
        """Wait until Triton ends by itself and raise ``TritonFailed``."""
        self.process.wait()
        raise self.failure()

    def failure(self) -> TritonFailed:
        """The error that explains why Triton ended."""
        reason = f"Triton died with exit status {self.process.returncode}."
        if self.lost:
            reason = (
                f"The process of {self.lost} died, and Triton was stopped because it neither "
                "restarts a model nor reports its loss: start the server again."
            )
        return TritonFailed(reason, log.tail(self.log))

    def lose(self, model: str) -> None:
        """Stop Triton after a model's death; other requests may finish during the exit timeout."""
        self.lost = model
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(self.settings.exit_seconds + 1)
        self.process.kill()


@contextmanager
def serving(
    folder: Path,
    grpc_port: int = 0,
    http_port: int = 0,
    metrics_port: int = 0,
    host: str = LOOPBACK,
    request_log: Path | None = None,
    log_prompts: bool = True,
    names: Collection[str] = (),
) -> Iterator[Server]:
    """Serve the exported pipelines of a model repository within this context.

    Serves the pipelines called ``names``, or all. Port 0 is any free port. ``request_log`` gets a
    line of JSON for each answered request. The context starts once every model is ready. At its
    end, running requests finish first, and no process or shared memory is left afterwards. If a
    model's process dies, Triton is stopped. Raises ``NothingToServe``, ``OldExport``, ``PortTaken``
    or ``TritonFailed``.
    """
    pipelines = repository.exported(folder, names)
    refuse_old(pipelines)
    chosen = ports.choose(Ports(grpc_port, http_port, metrics_port), host)
    with tempfile.TemporaryDirectory(prefix="stepwise-") as temporary:
        triton = installation.find(Path(temporary, "backends"))
        settings = Settings(
            repository=folder.resolve(),
            pipelines=tuple(pipeline.name for pipeline in pipelines),
            models=tuple(model for pipeline in pipelines for model in pipeline.models),
            backends=triton.backends,
            shm_prefix=f"{Path(temporary).name}-",
            # Other users of this machine can read the key in the process list; clients cannot.
            key=secrets.token_hex(),
            ports=chosen,
            host=host,
            config_name=triton.config_name,
            request_log=request_log,
            log_prompts=log_prompts,
        )
        server = _start(triton, settings, Path(temporary, "triton.log"))
        try:
            _wait_ready(server)
            try:
                with watching(server.pid, server.lose):
                    yield server
                if server.lost:
                    raise server.failure()
            finally:
                _drain(server)
        finally:
            _stop(server)


def _start(triton: Installation, settings: Settings, output: Path) -> Server:
    # A separate session, so that Ctrl-C reaches only this process, which drains Triton first.
    # setpriv stops Triton if this process is killed.
    command = ["setpriv", "--pdeathsig", "TERM", str(triton.binary), *arguments(settings)]
    with output.open("wb") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**triton.environment, **environment(settings)},
            # A folder without Python files that could shadow a package.
            cwd=output.parent,
            start_new_session=True,
        )
    return Server(process, settings, output)


def _wait_ready(server: Server) -> None:
    """Wait for every model, with a progress bar. Raises ``TritonFailed``."""
    total = len(server.settings.models)
    layout = "loading models: {n_fmt} of {total_fmt} |{bar:30}| {elapsed}"
    with tqdm(total=total, leave=False, disable=None, bar_format=layout) as bar:
        while not _ready(server):
            if server.process.poll() is not None:
                status = server.process.returncode
                reason = log.load_failure(server.log)
                reason = reason or f"Triton did not start (exit status {status})."
                raise TritonFailed(reason, log.tail(server.log))
            bar.n = log.loaded(server.log)
            bar.refresh()
            time.sleep(_POLL_SECONDS)


def _ready(server: Server) -> bool:
    try:
        with urllib.request.urlopen(f"{server.http_url}/v2/health/ready", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _drain(server: Server) -> None:
    if server.process.poll() is not None:
        return
    try:
        settings = server.settings
        drain(server.http_url, server.metrics_url, settings.key, settings.pipelines)
    except OSError as error:
        logger.warning("Triton does not respond and is stopped without draining: %s", error)
    except KeyboardInterrupt:
        server.process.kill()
        raise


def _stop(server: Server) -> None:
    """Stop Triton and remove its processes and shared memory; an interrupt only skips the wait.

    Requests are finished by now, or a warning has named the rest, so processes that do not stop in
    time are killed without a message.
    """
    try:
        server.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.process.wait(server.settings.exit_seconds + 1)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.process.wait()
        for region in _SHARED_MEMORY.glob(f"{server.settings.shm_prefix}*"):
            region.unlink(missing_ok=True)
