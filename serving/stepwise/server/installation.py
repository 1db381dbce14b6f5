"""Finds a tritonserver: the container's if there is one, else the wheel's."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stepwise.server import embedded
from stepwise.server.errors import ServerError

CONTAINER = Path("/opt/tritonserver")


@dataclass(frozen=True)
class Installation:
    """A tritonserver, its backend directory and its environment.

    It uses a model's config called ``config_name``, if the model has one.
    """

    binary: Path
    backends: Path
    environment: Mapping[str, str]
    config_name: str | None


def find(scratch: Path) -> Installation:
    """Find the container's tritonserver, else the wheel's, with its backends in ``scratch``.

    In the container, NVIDIA's onnxruntime and tensorrt backends replace ours, and engines are
    preferred to graphs. Raises ServerError if there is no tritonserver.
    """
    binary = CONTAINER / "bin" / "tritonserver"
    if binary.is_file():
        environment = embedded.python_models(os.environ)
        return Installation(binary, CONTAINER / "backends", environment, "tensorrt")
    if not embedded.BINARY.is_file():
        raise ServerError(
            f"found no tritonserver, neither {binary} nor nvidia-pytriton's: serve in NVIDIA's "
            "container, or pip install 'stepwise-serving[triton]'"
        )
    environment = embedded.environment(os.environ)
    return Installation(embedded.BINARY, embedded.lay_out(scratch), environment, None)
