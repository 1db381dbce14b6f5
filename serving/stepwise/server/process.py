"""Starts, monitors, drains and stops a tritonserver process."""

import logging
import os
import secrets
import signal
import subprocess
import time
import urllib.request
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import psutil
from tqdm import tqdm

from stepwise.server import installation, log, ports, remains, repository
from stepwise.server.drain import drain
from stepwise.server.errors import TritonFailed
from stepwise.server.flags import LOOPBACK, Ports, Settings, arguments, environment
from stepwise.server.formats import refuse_old
from stepwise.server.health import Watched, watching
from stepwise.server.installation import Installation

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.05


@dataclass
class Server:
    """A running tritonserver.

    ``log`` is its log file. ``lost`` says which of its processes is of no use any more, if Triton
    was killed because of it.
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

    def wait(self) -> NoReturn:
        """Wait until Triton ends by itself and raise ``TritonFailed``."""
        self.process.wait()
        raise self.failure()

    def failure(self) -> TritonFailed:
        """The error that explains why Triton ended."""
        reason = f"Triton died with exit status {self.process.returncode}."
        if self.lost:
            reason = f"{self.lost}, which Triton neither reports nor repairs, so it was ended."
        return TritonFailed(reason, log.tail(self.log))

    def lose(self, problem: str) -> None:
        """Kill Triton because of a process of no use; its clients lose their connections.

        Its requests cannot be saved: they need the process, or calls of other models, which an
        ending Triton refuses.
        """
        self.lost = problem
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


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
    peer_header: str = "",
    http_inference: bool = False,
) -> Iterator[Server]:
    """Serve the exported pipelines of a model repository within this context.

    Serves the pipelines called ``names``, or all. Port 0 is any free port. ``request_log`` gets a
    line of JSON for each answered request. ``peer_header`` is the header in which a trusted front
    names senders. HTTP takes requests only with ``http_inference``. The context starts once every
    model is ready. At its end, running requests finish first, and no process or shared memory is
    left afterwards, also if this process is killed. If a model's process dies, stops or hangs,
    Triton is ended. Raises ``NothingToServe``, ``OldExport``, ``PortTaken`` or ``TritonFailed``.
    """
    pipelines = repository.exported(folder, names)
    refuse_old(pipelines)
    chosen = ports.choose(Ports(grpc_port, http_port, metrics_port), host)
    with remains.scratch() as temporary:
        triton = installation.find(temporary / "backends")
        settings = Settings(
            repository=folder.resolve(),
            pipelines=tuple(pipeline.name for pipeline in pipelines),
            models=tuple(model for pipeline in pipelines for model in pipeline.models),
            backends=triton.backends,
            shm_prefix=remains.shm_prefix(temporary),
            # Other users of this machine can read the key in the process list; clients cannot.
            key=secrets.token_hex(),
            state=temporary / "state",
            ports=chosen,
            host=host,
            config_name=triton.config_name,
            request_log=request_log,
            log_prompts=log_prompts,
            peer_header=peer_header,
            http_inference=http_inference,
        )
        server = _start(triton, settings, temporary / "triton.log")
        remains.note(temporary, server.pid)
        with ExitStack() as stack:
            stack.callback(_stop, server)
            _wait_ready(server)
            stack.callback(_drain, server)
            watched = Watched(server.pid, server.http_url, settings.state, settings.pipelines)
            with watching(watched, server.lose):
                yield server
            if server.lost:
                raise server.failure()


def _start(triton: Installation, settings: Settings, output: Path) -> Server:
    # A separate session, so that Ctrl-C reaches only this process, which drains Triton first.
    # setpriv ends Triton if this process is killed before ``remains`` knows it.
    command = ["setpriv", "--pdeathsig", "KILL", str(triton.binary), *arguments(settings)]
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
        drain(server.http_url, settings.key, settings.pipelines, settings.state)
    except OSError as error:
        logger.warning("Triton does not respond and is stopped without draining: %s", error)
    except KeyboardInterrupt:
        server.process.kill()
        raise


def _stop(server: Server) -> None:
    """Stop Triton and its models; an interrupt only skips the wait.

    Requests are finished by now, or a warning has named the rest. While clients are connected, one
    of them may still be reading its responses, so Triton gets its exit timeout. Processes that do
    not stop in time are killed without a message.
    """
    try:
        if _has_clients(server):
            server.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                server.process.wait(server.settings.exit_seconds + 1)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.process.wait()


def _has_clients(server: Server) -> bool:
    """Whether anyone is connected to the ports for requests."""
    ports = server.settings.ports
    with suppress(psutil.NoSuchProcess):
        connections = psutil.Process(server.pid).net_connections("tcp")
        return any(
            each.status == psutil.CONN_ESTABLISHED and each.laddr.port in (ports.grpc, ports.http)
            for each in connections
        )
    return False
