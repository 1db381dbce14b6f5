"""What the server is told, as a value, and the ``tritonserver`` arguments that say so."""

from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
# What Triton needs to unload no model, and a hundred.
_EXIT_SECONDS, _EXIT_SECONDS_OF_100 = 5, 20
# More than a few load slowly for waiting, not for work: each waits a second or two for its process.
_MOST_LOADED_AT_ONCE = 64
# What Triton answers only with the key: loading and unloading models, registering memory, and
# sending traces and logs elsewhere. Clients need none of these.
RESTRICTED = ("model-repository", "shared-memory", "trace", "logging")
KEY_HEADER = "stepwise-key"


@dataclass(frozen=True)
class Ports:
    """Where the server listens; 0 stands for any free port until ``server.ports`` chose one."""

    grpc: int = 8001
    http: int = 8000
    metrics: int = 8002


@dataclass(frozen=True)
class Settings:
    """One run of Triton.

    ``models`` are loaded and no others; ``pipelines`` are the ensembles among them, which is what
    clients call. ``backends`` is Triton's backend directory. Every shared memory region that
    Triton's Python models make begins with ``shm_prefix``. A model is served with its
    ``configs/<config_name>.pbtxt`` where it has one, else with its ``config.pbtxt``. ``key`` opens
    the ``RESTRICTED`` interfaces, as the header ``KEY_HEADER`` over HTTP and as
    ``triton-grpc-protocol-<KEY_HEADER>`` over gRPC. ``request_log`` is the file to which models
    append a line for each request, with its prompts if ``log_prompts``.
    """

    repository: Path
    pipelines: tuple[str, ...]
    models: tuple[str, ...]
    backends: Path
    shm_prefix: str
    key: str
    ports: Ports = Ports()
    host: str = LOOPBACK
    config_name: str | None = None
    request_log: Path | None = None
    log_prompts: bool = True

    @property
    def exit_seconds(self) -> int:
        """What Triton gets to unload its models; the more there are, the longer."""
        return _EXIT_SECONDS + len(self.models) * _EXIT_SECONDS_OF_100 // 100


def environment(settings: Settings) -> dict[str, str]:
    """The environment variables that tell the Python models of their request log."""
    if settings.request_log is None:
        return {}
    return {
        "STEPWISE_REQUEST_LOG": str(settings.request_log.resolve()),
        "STEPWISE_LOG_PROMPTS": str(int(settings.log_prompts)),
    }


def arguments(settings: Settings) -> list[str]:
    """The arguments of ``tritonserver`` for these settings, without the program's name."""
    ports = settings.ports
    restriction = f"{','.join(RESTRICTED)}:{KEY_HEADER}={settings.key}"
    return [
        f"--model-repository={settings.repository}",
        f"--backend-directory={settings.backends}",
        "--model-control-mode=explicit",
        # Configs are complete; to complete them, Triton would start each Python model twice.
        "--disable-auto-complete-config",
        f"--model-load-thread-count={min(len(settings.models), _MOST_LOADED_AT_ONCE)}",
        *(f"--load-model={model}" for model in settings.models),
        *(f"--model-config-name={name}" for name in (settings.config_name,) if name),
        f"--backend-config=python,shm-region-prefix-name={settings.shm_prefix}",
        f"--grpc-address={settings.host}",
        f"--grpc-port={ports.grpc}",
        f"--http-address={settings.host}",
        f"--http-port={ports.http}",
        f"--metrics-address={settings.host}",
        f"--metrics-port={ports.metrics}",
        f"--grpc-restricted-protocol={restriction}",
        f"--http-restricted-api={restriction}",
        f"--exit-timeout-secs={settings.exit_seconds}",
    ]
