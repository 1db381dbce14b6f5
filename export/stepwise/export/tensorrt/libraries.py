"""NVIDIA's two libraries that build engines, and the GPUs that they build for."""

import importlib
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

from stepwise.export.errors import EngineError


@dataclass(frozen=True)
class Library:
    """One of NVIDIA's two libraries.

    ``file`` is the name of its engines in a version folder, ``config`` the name of the model config
    that Triton's backend for it reads ("" if Triton has none). A library with ``any_gpu`` builds
    for any GPU and needs none in this machine; the other builds for this machine's GPU.
    """

    module: str
    file: str
    config: str
    any_gpu: bool


LIBRARIES = {
    "tensorrt": Library("tensorrt", "model.plan", config="tensorrt", any_gpu=False),
    "tensorrt-rtx": Library("tensorrt_rtx", "model.rtx", config="", any_gpu=True),
}
# Ada Lovelace: the RTX 40 series, L4 and L40.
_USUAL_CAPABILITY = "8.9"


_ADVICE = {
    "tensorrt": "export inside the container that will serve, where NVIDIA has installed it",
    "tensorrt-rtx": "install tensorrt-rtx-cu13 as in requirements.txt",
}


def load(name: str) -> Any:
    """The Python module of a library; EngineError if it is not installed."""
    module = LIBRARIES[name].module
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EngineError(
            f"the target {name} needs the Python module {module}, which cannot be imported here "
            f"({error}); {_ADVICE[name]}"
        ) from error


def compute_capability(name: str, asked: str | None) -> str:
    """The compute capability to build for, such as "8.9".

    TensorRT for RTX builds for ``asked``, else for this machine's GPU, else for 8.9. TensorRT
    builds only for this machine's GPU. Raises EngineError if there is none, or it is not ``asked``.
    """
    present = gpu_capability()
    if LIBRARIES[name].any_gpu:
        return asked or present or _USUAL_CAPABILITY
    if present is None:
        raise EngineError(
            f"the target {name} builds for the GPU of this machine, and nvidia-smi finds none; "
            "export on the machine that will serve"
        )
    if asked not in (None, present):
        raise EngineError(
            f"the target {name} builds for the GPU of this machine, which has compute capability "
            f"{present}, not {asked}; leave --compute-capability out"
        )
    return present


def gpu_capability() -> str | None:
    """The compute capability of the first GPU of this machine; None if there is none."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = [command, "--query-gpu=compute_cap", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True, check=False)
    return found.stdout.split()[0] if found.returncode == 0 and found.stdout.strip() else None
