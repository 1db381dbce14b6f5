"""A tritonserver process: started, waited for, drained and stopped."""

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

    ``log`` is the file that it writes to; ``lost`` names the model that it was ended for.
    """

    process: subprocess.Popen[bytes]
    settings: Settings
    log: Path
    lost: str | None = None

    @property
    def grpc_url(self) -> str:
        """``host:port``, as tritonclient takes it."""
        return f"{self.settings.host}:{self.settings.ports.grpc}"

    @property
    def http_url(self) -> str:
        """The root of the HTTP interface."""
        return f"http://{self.settings.host}:{self.settings.ports.http}"

    @property
    def metrics_url(self) -> str:
        """The page that Prometheus reads."""
        return f"http://{self.settings.host}:{self.settings.ports.metrics}/metrics"

    @property
    def pid(self) -> int:
        """The process id of tritonserver, which is also that of its process group."""
        return self.process.pid

    def wait(self) -> None:
        """Wait until Triton ends by itself and raise ``TritonFailed``."""
        self.process.wait()
        raise self.failure()

    def failure(self) -> TritonFailed:
        """Why Triton is no more."""
        reason = f"Triton died with exit status {self.process.returncode}."
        if self.lost:
            reason = (
                f"The process of {self.lost} died, and Triton was ended because it neither "
                "restarts a model nor reports its loss: start the server again."
            )
        return TritonFailed(reason, log.tail(self.log))

    def lose(self, model: str) -> None:
        """End Triton for the loss of a model; other requests have its time to exit to end."""
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
    """Serve the exported pipelines of a model repository for as long as the context lasts.

    All of them, or those that are called one of ``names``. Port 0 is any free port. ``request_log``
    gets a line of JSON for each answered request. Yields once every model is ready. On the way out,
    running requests finish first; afterwards no process and no shared memory is left. Once a
    model's process dies, so does Triton. Raises ``NothingToServe``, ``OldExport``, ``PortTaken`` or
    ``TritonFailed``.
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
            # Other accounts of this machine can read it in the process list; the network cannot.
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
    # A session of its own: Ctrl-C must reach us alone, because we drain before Triton stops.
    # setpriv: should we be killed, Triton stops too.
    command = ["setpriv", "--pdeathsig", "TERM", str(triton.binary), *arguments(settings)]
    with output.open("wb") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**triton.environment, **environment(settings)},
            # Where no file can take the place of a package.
            cwd=output.parent,
            start_new_session=True,
        )
    return Server(process, settings, output)


def _wait_ready(server: Server) -> None:
    """Wait for every model, with a line that moves; raises ``TritonFailed``."""
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
        logger.warning("Triton does not answer and is stopped as it is: %s", error)
    except KeyboardInterrupt:
        server.process.kill()
        raise


def _stop(server: Server) -> None:
    """Stop Triton and remove all that it leaves; a second interrupt only skips the waiting.

    Requests are answered by now, or it has been said that some are not: what does not stop in time
    is killed without a word.
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
