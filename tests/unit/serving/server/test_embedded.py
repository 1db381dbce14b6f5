import os
import sys
from pathlib import Path

from stepwise.server import embedded


def test_the_backend_directory_has_the_files_that_triton_needs(tmp_path):
    folder = embedded.lay_out(tmp_path / "backends")
    for name in (
        "python/libtriton_python.so",
        "python/triton_python_backend_utils.py",
        "python/triton_python_backend_stub",
        "onnxruntime/model.py",
    ):
        # Triton refuses a library if its real path is outside the backend directory.
        assert (folder / name).is_file()
        assert not (folder / name).is_symlink()
    assert os.access(folder / "python" / "triton_python_backend_stub", os.X_OK)


def test_stubs_find_the_running_python_and_its_libraries():
    given = embedded.environment({"PATH": "/bin", "HOME": "/home/me"})
    assert given["PATH"] == f"{Path(sys.executable).parent}:/bin"
    assert any(Path(given["LD_LIBRARY_PATH"].split(":")[0]).glob("libcudart*"))
    assert given["HOME"] == "/home/me"
