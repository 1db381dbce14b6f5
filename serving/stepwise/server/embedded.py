"""Runs the tritonserver of the ``nvidia-pytriton`` wheel with our backends."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

_SITE_PACKAGES = Path(sysconfig.get_path("platlib"))
_WHEEL = _SITE_PACKAGES / "pytriton" / "tritonserver"
LIBRARIES = _SITE_PACKAGES / "nvidia_pytriton.libs"
_OUR_BACKENDS = Path(__file__).parent / "backends"

_CACHES = shutil.ignore_patterns("__pycache__")

BINARY = _WHEEL / "bin" / "tritonserver"


def lay_out(folder: Path) -> Path:
    """Make a backend directory in an empty ``folder`` and return it.

    ``python`` gets the stub of the running Python, which the wheel stores elsewhere. Each backend
    in our ``backends`` folder gets its own folder.
    """
    python = folder / "python"
    python.mkdir(parents=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for path in (
        _WHEEL / "backends" / "python" / "libtriton_python.so",
        _WHEEL / "backends" / "python" / "triton_python_backend_utils.py",
        _WHEEL / "python_backend_stubs" / version / "triton_python_backend_stub",
    ):
        shutil.copy2(path, python)
    for backend in _OUR_BACKENDS.iterdir():
        shutil.copytree(backend, folder / backend.name, ignore=_CACHES)
    return folder


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of the wheel's tritonserver, including the path of its libraries."""
    libraries = (str(LIBRARIES), str(sysconfig.get_config_var("LIBDIR")))
    return {
        **python_models(inherited),
        "LD_LIBRARY_PATH": _joined(*libraries, inherited.get("LD_LIBRARY_PATH", "")),
    }


def python_models(inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment that the Python models of any tritonserver need.

    A stub embeds a Python that ignores PYTHONPATH and uses the packages of the first ``python3`` in
    PATH. So the running Python, which has our packages, comes first. BLAS gets one thread, because
    no Python model multiplies matrices.
    """
    return {
        **inherited,
        "PATH": _joined(str(Path(sys.executable).parent), inherited.get("PATH", "")),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _joined(*paths: str) -> str:
    return os.pathsep.join(path for path in paths if path)
