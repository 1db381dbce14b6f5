import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines import PIPELINES

ROOT = Path(__file__).parents[1]


FAMILIES = ROOT / "out" / "families"
HALVES = ROOT / "out" / "halves"


def export(family: str, checkpoint: Path, *options: str) -> None:
    """Export a checkpoint, on one core; quick if it is there already."""
    command = [sys.executable, "-m", "export", family, "--checkpoint", str(checkpoint), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


def export_all(checkpoints: Mapping[str, Path], repository: Path, *options: str) -> Path:
    """Export the miniature of each family, as many at once as there are cores."""
    to = ("--repository", str(repository), *options)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda each: export(*each, *to), checkpoints.items()))
    return repository


def of_clips(checkpoints: Mapping[str, Path]) -> dict[str, Path]:
    """Those that make clips."""
    return {family: at for family, at in checkpoints.items() if PIPELINES[family].makes_clips}


@pytest.fixture(scope="session")
def repository() -> Path:
    """The model repository with the SD3 miniature in it."""
    export("sd3", Path("miniatures/sd3"))
    return ROOT / "model_repository"


@pytest.fixture(scope="session")
def checkpoints() -> dict[str, Path]:
    """The miniature of each family."""
    return {family: ROOT / "miniatures" / family for family in PIPELINES}


@pytest.fixture(scope="session")
def families(checkpoints: dict[str, Path]) -> Path:
    """A model repository with every family in it."""
    return export_all(checkpoints, FAMILIES)


@pytest.fixture(scope="session")
def halves(checkpoints: dict[str, Path]) -> Path:
    """The same in float16."""
    return export_all(checkpoints, HALVES, "--precision", "fp16")


@pytest.fixture(scope="session")
def clips(checkpoints: dict[str, Path]) -> Path:
    """A model repository with every family that makes clips in it, which is that of all."""
    return export_all(of_clips(checkpoints), FAMILIES)


@pytest.fixture(scope="session")
def half_clips(checkpoints: dict[str, Path]) -> Path:
    """The same in float16."""
    return export_all(of_clips(checkpoints), HALVES, "--precision", "fp16")
