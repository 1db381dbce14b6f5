"""Which tritonserver runs: the container's where there is one, else the one in the wheel."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stepwise.server import embedded
from stepwise.server.errors import ServerError

CONTAINER = Path("/opt/tritonserver")


@dataclass(frozen=True)
class Installation:
    """A tritonserver, its backend directory, and the environment that it needs.

    Of each model's configs it takes the one that is called ``config_name``, where there is one.
    """

    binary: Path
    backends: Path
    environment: Mapping[str, str]
    config_name: str | None


def find(scratch: Path) -> Installation:
    """The container's tritonserver if this is one, else the wheel's, arranged in ``scratch``.

    The container has NVIDIA's own onnxruntime and tensorrt backends, so ours stay out of it, and
    it prefers engines to graphs. Raises ServerError where there is neither.
    """
    binary = CONTAINER / "bin" / "tritonserver"
    if binary.is_file():
        environment = embedded.python_models(os.environ)
        return Installation(binary, CONTAINER / "backends", environment, "tensorrt")
    if not embedded.BINARY.is_file():
        raise ServerError(
            f"there is no tritonserver, neither {binary} nor that of nvidia-pytriton: serve in "
            "NVIDIA's container, or pip install 'stepwise-serving[triton]'"
        )
    environment = embedded.environment(os.environ)
    return Installation(embedded.BINARY, embedded.lay_out(scratch), environment, None)
