"""The distributions as users install them: in virtual environments without the checkout."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import stepwise.client
import stepwise.export
import stepwise.families
from tests.support.paths import ROOT

MOST_BYTES = 150_000_000
PROMPT = "a large red star in the top left on a white background"
DRAW = """
import numpy as np
from stepwise.local import LocalPipeline
(image,) = LocalPipeline("model_repository", "sd3").generate(%r, steps=8, seed=7)
np.save("local.npy", image)
"""

pytestmark = pytest.mark.further


def run(*command, cwd):
    """Run a command in a Python environment that cannot import the checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True)
    print(done.stdout[-2000:], done.stderr[-2000:])
    return done


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """A wheel and an sdist of each distribution."""
    folder = tmp_path_factory.mktemp("wheels")
    for name in ("client", "serving", "export"):
        for kind in ("wheel", "sdist"):
            build = (sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", folder)
            assert run(*build, cwd=ROOT / name).returncode == 0
    assert len(list(folder.glob("*.whl"))) == len(list(folder.glob("*.tar.gz"))) == 3
    return folder


def environment(folder, wheels, *requirements):
    """The scripts folder of a new environment; our distributions come from ``wheels``."""
    place, pinned = folder / "venv", folder / "constraints.txt"
    assert run(sys.executable, "-m", "venv", place, cwd=folder).returncode == 0
    lines = (ROOT / "requirements.txt").read_text().replace("[grpc]", "").splitlines()
    pinned.write_text("\n".join(line for line in lines if "==" in line))
    install = (place / "bin" / "python", "-m", "pip", "install", "--quiet", "--constraint", pinned)
    done = run(*install, "--find-links", wheels, *requirements, cwd=folder)
    assert done.returncode == 0
    return place / "bin"


@pytest.fixture(scope="module")
def alone(tmp_path_factory, wheels):
    """An environment with only the client."""
    return environment(tmp_path_factory.mktemp("alone"), wheels, "stepwise-client")


@pytest.fixture(scope="module")
def everything(tmp_path_factory, wheels):
    """An environment with all three distributions, including torch."""
    ours = ("stepwise-client[cli]", "stepwise-serving[triton,local]", "stepwise-export")
    return environment(tmp_path_factory.mktemp("everything"), wheels, *ours)


# Saves a result without the libraries for files.
SAVE = """
import sys
import numpy as np
from stepwise.client import Client, Event, OutputError
print(*{"torch", "av", "PIL"} & {*sys.modules})
try:
    Event("result", 0, 1, 1, 7, 0, 0, 1, (), np.zeros((8, 8, 3), np.uint8)).save("a.png")
except OutputError as error:
    print(error)
"""


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_client_alone_is_small_and_names_missing_packages(alone, tmp_path):
    (pip,) = alone.parent.glob("lib/python*/site-packages/pip")
    own = size(alone.parent) - size(pip)
    print(f"{own / 1e6:.0f} MB without pip, at most {MOST_BYTES / 1e6:.0f}")
    assert own <= MOST_BYTES
    done = run(alone / "python", "-c", SAVE, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (
        0,
        "\na.png: saving needs PIL: pip install 'stepwise-client[cli]'\n",
    )
    for command, needed in (
        (("generate", "sd3", PROMPT), "pip install 'stepwise-client[cli]'"),
        (("page",), "pip install 'stepwise-client[page]'"),
        (("export", "sd3"), "pip install stepwise-export"),
        (("serve",), "pip install stepwise-serving"),
    ):
        done = run(alone / "stepwise", *command, cwd=tmp_path)
        assert done.returncode in (1, 2)
        assert needed in done.stderr
        assert "Traceback" not in done.stderr


@contextmanager
def served(scripts, repository, cwd):
    """Serve a repository with ``cwd`` as working folder; yields the gRPC address."""
    ports = ("--grpc-port", "0", "--http-port", "0", "--metrics-port", "0")
    command = [str(scripts / "stepwise"), "serve", "--repository", str(repository), *ports]
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = [process.stdout.readline() for _ in range(2)]
            yield lines[1].split()[1]
        finally:
            process.terminate()


def test_all_three_export_serve_and_generate_without_the_checkout(everything, tmp_path):
    """Makes a picture from a checkpoint in an empty folder, then the same one without Triton."""
    checkpoint = ROOT / "miniatures" / "sd3"
    export = (everything / "stepwise", "export", "sd3", "--checkpoint", checkpoint)
    assert run(*export, cwd=tmp_path).returncode == 0
    with served(everything, tmp_path / "model_repository", "/") as url:
        draw = (everything / "stepwise", "generate", "sd3", PROMPT, "--url", url)
        assert run(*draw, "--steps", "8", "--seed", "7", cwd=tmp_path).returncode == 0
    assert run(everything / "python", "-c", DRAW % PROMPT, cwd=tmp_path).returncode == 0
    drawn = np.asarray(Image.open(tmp_path / "out.png")).astype(int)
    difference = np.abs(np.load(tmp_path / "local.npy") - drawn).max()
    print(f"largest difference {difference} of 255, ceiling 1")
    assert difference <= 1
    assert run(everything / "stepwise", "check", cwd=tmp_path).returncode == 0


def test_tests_run_the_editable_installs():
    modules = {"client": stepwise.client, "export": stepwise.export, "serving": stepwise.families}
    for folder, module in modules.items():
        assert Path(module.__file__).is_relative_to(ROOT / folder)
