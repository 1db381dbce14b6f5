from pathlib import Path

import pytest

from stepwise.server import embedded, installation
from stepwise.server.errors import ServerError
from stepwise.server.flags import Settings, arguments


def settings(found: installation.Installation) -> Settings:
    return Settings(
        Path("/models"),
        (),
        (),
        found.backends,
        "x-",
        "key",
        Path("/state"),
        config_name=found.config_name,
    )


@pytest.fixture
def container(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "tritonserver"
    monkeypatch.setattr(installation, "CONTAINER", folder)
    return folder


def test_the_container_serves_with_its_own_binary_and_backends(container, tmp_path, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/usr/local/cuda/lib64")
    (container / "bin").mkdir(parents=True)
    (container / "bin" / "tritonserver").touch()
    found = installation.find(tmp_path / "scratch")
    assert found.binary == container / "bin" / "tritonserver"
    assert found.environment["LD_LIBRARY_PATH"] == "/usr/local/cuda/lib64"
    given = arguments(settings(found))
    assert f"--backend-directory={container / 'backends'}" in given
    assert "--model-config-name=tensorrt" in given
    assert not (tmp_path / "scratch").exists()


def test_the_wheel_serves_outside_a_container(container, tmp_path):
    found = installation.find(tmp_path / "scratch")
    assert found.binary == embedded.BINARY
    assert (tmp_path / "scratch" / "onnxruntime" / "model.py").is_file()
    given = arguments(settings(found))
    assert f"--backend-directory={tmp_path / 'scratch'}" in given
    assert not [argument for argument in given if argument.startswith("--model-config-name")]


def test_the_error_without_triton_says_how_to_install_it(container, tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "BINARY", tmp_path / "none")
    with pytest.raises(
        ServerError, match=r"no tritonserver, .* pip install 'stepwise-serving\[tri"
    ):
        installation.find(tmp_path / "scratch")
