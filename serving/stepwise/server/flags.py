"""The settings of a server, and the ``tritonserver`` arguments and environment for them."""

import re
from dataclasses import dataclass
from pathlib import Path

from stepwise.request.peers import VARIABLE as PEER_HEADER
from stepwise.request.shared_state import VARIABLE as STATE

LOOPBACK = "127.0.0.1"
# Seconds that Triton needs to unload no models, and 100 models in addition.
_EXIT_SECONDS, _EXIT_SECONDS_OF_100 = 5, 20
# Each model spends a second or two waiting for its process to start, so many load at once.
_MOST_LOADED_AT_ONCE = 64
# Interfaces that need the key: loading and unloading models, registering memory, and redirecting
# traces and logs. Clients need none of these.
RESTRICTED = ("model-repository", "shared-memory", "trace", "logging")
# Over HTTP, pages of other sites could send requests from a user's browser.
RESTRICTED_OVER_HTTP = (*RESTRICTED, "inference")
KEY_HEADER = "stepwise-key"
# Before the names of the pipelines in Triton's server metadata, the only place that clients without
# the key can read them from: the model index is restricted.
SERVER_ID = "stepwise:"
# Milliseconds between two pings of a client. Our clients ping a silent stream every 20 s, and
# Triton closes the connection of a client that pings more often than every 5 minutes by default.
_LEAST_PING_INTERVAL = 10_000


@dataclass(frozen=True)
class Ports:
    """The ports to listen on; ``server.ports`` replaces 0 by a free port."""

    grpc: int = 8001
    http: int = 8000
    metrics: int = 8002


@dataclass(frozen=True)
class Settings:
    """The settings of one Triton process.

    Triton loads only ``models``; ``pipelines`` are those among them that clients call.
    ``backends`` is Triton's backend directory. The names of all shared memory regions of Triton's
    Python models begin with ``shm_prefix``. Triton uses a model's ``configs/<config_name>.pbtxt``
    if it exists, else its ``config.pbtxt``. ``key`` opens the ``RESTRICTED`` interfaces, as the
    header ``KEY_HEADER`` over HTTP and ``triton-grpc-protocol-<KEY_HEADER>`` over gRPC. Models
    append a line per request to the file ``request_log``, with its prompts if ``log_prompts``.
    They share a key and counts in the folder ``state``. ``peer_header`` is the header in which a
    trusted front names the sender of a request. Without ``http_inference``, HTTP takes requests
    only with the key.
    """

    repository: Path
    pipelines: tuple[str, ...]
    models: tuple[str, ...]
    backends: Path
    shm_prefix: str
    key: str
    state: Path
    ports: Ports = Ports()
    host: str = LOOPBACK
    config_name: str | None = None
    request_log: Path | None = None
    log_prompts: bool = True
    peer_header: str = ""
    http_inference: bool = False

    @property
    def exit_seconds(self) -> int:
        """Seconds that Triton gets to unload its models, more for more models."""
        return _EXIT_SECONDS + len(self.models) * _EXIT_SECONDS_OF_100 // 100


def environment(settings: Settings) -> dict[str, str]:
    """The environment variables that configure the Python models."""
    variables = {STATE: str(settings.state), PEER_HEADER: settings.peer_header}
    if settings.request_log is not None:
        variables["STEPWISE_REQUEST_LOG"] = str(settings.request_log.resolve())
        variables["STEPWISE_LOG_PROMPTS"] = str(int(settings.log_prompts))
    return variables


def arguments(settings: Settings) -> list[str]:
    """The arguments of ``tritonserver`` for these settings, without the program's name."""
    ports = settings.ports
    over_http = RESTRICTED if settings.http_inference else RESTRICTED_OVER_HTTP
    forwarded = re.escape(settings.peer_header)
    return [
        f"--id={SERVER_ID}{','.join(settings.pipelines)}",
        f"--model-repository={settings.repository}",
        f"--backend-directory={settings.backends}",
        "--model-control-mode=explicit",
        # Configs are complete, and auto-completion would start each Python model twice.
        "--disable-auto-complete-config",
        f"--model-load-thread-count={min(len(settings.models), _MOST_LOADED_AT_ONCE)}",
        *(f"--load-model={model}" for model in settings.models),
        *(f"--model-config-name={name}" for name in (settings.config_name,) if name),
        f"--backend-config=python,shm-region-prefix-name={settings.shm_prefix}",
        f"--grpc-address={settings.host}",
        f"--grpc-port={ports.grpc}",
        f"--grpc-http2-min-recv-ping-interval-without-data={_LEAST_PING_INTERVAL}",
        f"--http-address={settings.host}",
        f"--http-port={ports.http}",
        f"--metrics-address={settings.host}",
        f"--metrics-port={ports.metrics}",
        f"--grpc-restricted-protocol={','.join(RESTRICTED)}:{KEY_HEADER}={settings.key}",
        f"--http-restricted-api={','.join(over_http)}:{KEY_HEADER}={settings.key}",
        *(
            f"--{protocol}-header-forward-pattern=(?i)^{forwarded}$"
            for protocol in ("grpc", "http")
            if forwarded
        ),
        f"--exit-timeout-secs={settings.exit_seconds}",
    ]
