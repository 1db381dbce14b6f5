import os
import sys
from pathlib import Path

from stepwise.server import embedded


def test_backend_directory_has_what_triton_looks_for(tmp_path):
    folder = embedded.lay_out(tmp_path / "backends")
    for name in (
        "python/libtriton_python.so",
        "python/triton_python_backend_utils.py",
        "python/triton_python_backend_stub",
        "onnxruntime/model.py",
    ):
        # Triton refuses a library whose real path lies outside of its backend directory.
        assert (folder / name).is_file()
        assert not (folder / name).is_symlink()
    assert os.access(folder / "python" / "triton_python_backend_stub", os.X_OK)


def test_stubs_find_the_running_python_and_its_libraries():
    given = embedded.environment({"PATH": "/bin", "HOME": "/home/me"})
    assert given["PATH"] == f"{Path(sys.executable).parent}:/bin"
    assert any(Path(given["LD_LIBRARY_PATH"].split(":")[0]).glob("libcudart*"))
    assert given["HOME"] == "/home/me"
