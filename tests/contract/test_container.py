"""The steps of the container images that run without a container engine."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

from stepwise.server import embedded, installation
from stepwise.server.drain import DRAIN_SECONDS
from stepwise.server.flags import Settings
from stepwise.server.process import serving
from tests.support import mock_pipeline
from tests.support.paths import ROOT

DEPLOY = ROOT / "deploy"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
# The distributions in each image; FROM_THE_IMAGE lists modules that come with Triton or TensorRT.
ROLES = {"serve": ("client", "serving"), "export": ("client", "serving", "export")}
# The images have no extras: no page, no image files, no graphs without Triton.
EXTRAS = {("client", extra) for extra in ("cli", "media", "page")} | {("serving", "local")}
NOT_SERVED = {"input_images.py", "metadata.py", "output.py", "contact_sheet.py"}
FROM_THE_IMAGE = {"triton_python_backend_utils", "tensorrt"}
# Wheel platforms that pip accepts on Ubuntu 24.04, x86-64.
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux2014_x86_64")


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def names(role: str) -> set[str]:
    """The third-party packages that the distributions of an image need."""
    projects = [tomllib.loads((ROOT / n / "pyproject.toml").read_text()) for n in ROLES[role]]
    needed = [one for project in projects for one in project["project"]["dependencies"]]
    found = {re.split(r"[=<>\[]", line)[0].replace("_", "-").lower() for line in needed}
    return {name for name in found if not name.startswith("stepwise-")}


def sources(distribution: str) -> Iterator[Path]:
    """The modules of a distribution that need no extra."""
    for path in (ROOT / distribution / "stepwise").rglob("*.py"):
        parts = path.relative_to(ROOT).parts
        extra = any((distribution, part) in EXTRAS for part in parts) or path.name in NOT_SERVED
        if not extra and "backends" not in parts:
            yield path


def pins(name: str) -> dict[str, str]:
    lines = re.findall(r"^([\w.-]+)(?:\[\w+\])?==(\S+)$", (ROOT / name).read_text(), re.MULTILINE)
    return {package.replace("_", "-").lower(): version for package, version in lines}


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """A new virtual environment with the packages of the serving image."""
    folder = tmp_path_factory.mktemp("serve") / "venv"
    done = run(DEPLOY / "install.sh", "serve", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_hadolint_finds_nothing():
    done = run(Path(sys.executable).with_name("hadolint"), "Dockerfile")
    assert done.returncode == 0, done.stdout


def test_both_stages_pin_one_release():
    images = re.findall(r"^FROM (\S+) AS (\w+)$", DOCKERFILE, re.MULTILINE)
    assert images[1:] == [("triton", "export"), ("triton", "serve")]
    release = re.fullmatch(r"nvcr\.io/nvidia/tritonserver:(\d+\.\d+)-py3", images[0][0])
    assert release
    assert float(release[1]) >= 26.04


def test_files_that_the_dockerfile_copies_exist_and_reach_the_build():
    sources = re.findall(r"^COPY (\S+) \S+$", DOCKERFILE, re.MULTILINE)
    assert sources
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignore, source


def test_every_shell_step_is_a_script():
    steps = re.findall(r"^RUN (.+)$", DOCKERFILE, re.MULTILINE)
    assert steps
    for words in (command.split() for step in steps for command in step.split(" && ")):
        assert os.access(ROOT / words[0], os.X_OK), words


@pytest.mark.parametrize("role", ROLES)
def test_an_image_has_every_package_that_its_code_imports(role):
    known = packages_distributions()
    # tritonclient[grpc] brings protobuf and grpcio.
    listed = names(role) | {"protobuf", "grpcio"}
    for path in (path for distribution in ROLES[role] for path in sources(distribution)):
        missing = {
            module
            for module in third_party(path)
            if not {name.replace("_", "-").lower() for name in known[module]} & listed
        }
        assert not missing, f"{path.relative_to(ROOT)} imports {missing}"


def third_party(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    tops = {module.split(".")[0] for module in modules}
    return tops - sys.stdlib_module_names - {"stepwise"} - FROM_THE_IMAGE


@pytest.mark.parametrize("role", ROLES)
def test_every_package_of_an_image_is_pinned(role):
    assert names(role) <= pins("constraints.txt").keys()


def test_constraints_and_requirements_agree():
    constraints = pins("constraints.txt")
    for package, version in pins("requirements.txt").items():
        assert constraints.get(package, version) == version, package


def test_the_serving_image_imports_its_modules(environment):
    modules = sorted(
        ".".join(path.relative_to(ROOT / name).with_suffix("").parts).removesuffix(".__init__")
        for name in ROLES["serve"]
        for path in sources(name)
        # Modules that Triton starts import a module that only Triton provides.
        if path.parent.name != "triton" or path.name == "round_robin.py"
    )
    assert "stepwise.request.prepare" in modules
    done = run(environment / "bin" / "python", "-c", f"import tokenizers, {', '.join(modules)}")
    assert done.returncode == 0, done.stderr
    done = run(environment / "bin" / "stepwise", "serve", "--help")
    assert done.returncode == 0, done.stderr


def test_the_serving_image_resolves_for_its_own_python(tmp_path):
    done = run(
        *(sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"),
        *("--python-version=3.12", "--only-binary=:all:", "--target", tmp_path),
        *(f"--platform={platform}" for platform in PLATFORMS),
        *sorted(names("serve")),
        *("--constraint", ROOT / "constraints.txt"),
    )
    assert done.returncode == 0, done.stderr


def test_the_export_image_resolves(tmp_path):
    done = run(DEPLOY / "install.sh", "export", tmp_path / "venv", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert re.search(
        rf"Would install .*torch-{re.escape(pins('requirements.txt')['torch'])}", done.stdout
    )


def test_tensorrt_bindings_need_the_tensorrt_of_an_image(tmp_path):
    done = run(DEPLOY / "install_tensorrt.sh", tmp_path)
    assert done.returncode == 1
    assert "no libnvinfer package here; run this in a Triton image" in done.stderr


def test_the_container_layout_serves_and_its_health_check_works(environment, tmp_path, monkeypatch):
    """The wheel's Triton in the image's layout: the binary, its backends, no scratch folder."""
    container = tmp_path / "tritonserver"
    shutil.copytree(embedded.BINARY.parent, container / "bin")
    embedded.lay_out(container / "backends")
    libraries = embedded.environment(os.environ)["LD_LIBRARY_PATH"]
    monkeypatch.setenv("LD_LIBRARY_PATH", libraries)
    monkeypatch.setattr(installation, "CONTAINER", container)
    check = (environment / "bin" / "python", DEPLOY / "healthcheck.py")
    with serving(mock_pipeline.build(tmp_path / "repository")) as server:
        port = str(server.settings.ports.http)
        assert "--model-config-name=tensorrt" in server.process.args
        assert run(*check, port).returncode == 0
    done = run(*check, port)
    assert done.returncode == 1
    assert f"not ready on port {port}" in done.stderr


def test_compose_sets_shared_memory_grace_period_and_restart():
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["stepwise"]
    assert service["shm_size"] == "1gb"
    assert service["restart"] == "on-failure"
    grace = float(service["stop_grace_period"].removesuffix("s"))
    # A server with fifty models.
    models = tuple(map(str, range(50)))
    settings = Settings(Path(), (), models, Path(), "", "", Path())
    assert grace > DRAIN_SECONDS + settings.exit_seconds + 5
    assert service["build"]["target"] == "serve"
