import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import PIPELINES

ROOT = Path(__file__).parents[1]


FAMILIES = ROOT / "out" / "families"
HALVES = ROOT / "out" / "halves"


def export(family: str, checkpoint: Path, *options: str) -> None:
    """Export a checkpoint; quick if it is there already."""
    command = [sys.executable, "-m", "export", family, "--checkpoint", str(checkpoint), *options]
    subprocess.run(command, cwd=ROOT, check=True)


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
    for family, checkpoint in checkpoints.items():
        export(family, checkpoint, "--repository", str(FAMILIES))
    return FAMILIES


@pytest.fixture(scope="session")
def halves(checkpoints: dict[str, Path]) -> Path:
    """The same in float16."""
    for family, checkpoint in checkpoints.items():
        export(family, checkpoint, "--repository", str(HALVES), "--precision", "fp16")
    return HALVES


def export_clips(checkpoints: dict[str, Path], repository: Path, *options: str) -> Path:
    """Export the families that make clips; they are in the others' repository too."""
    for family, checkpoint in checkpoints.items():
        if PIPELINES[family].makes_clips:
            export(family, checkpoint, "--repository", str(repository), *options)
    return repository


@pytest.fixture(scope="session")
def clips(checkpoints: dict[str, Path]) -> Path:
    """A model repository with every family that makes clips in it."""
    return export_clips(checkpoints, FAMILIES)


@pytest.fixture(scope="session")
def half_clips(checkpoints: dict[str, Path]) -> Path:
    """The same in float16."""
    return export_clips(checkpoints, HALVES, "--precision", "fp16")
