import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoints import write_sdxl

ROOT = Path(__file__).parents[1]


FAMILIES = ROOT / "out" / "families"


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
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small checkpoint of each family."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        "sd3": ROOT / "miniatures" / "sd3",
        "sdxl": write_sdxl(folder / "sdxl"),
        "sdxl_turbo": write_sdxl(folder / "sdxl_turbo", turbo=True),
    }


@pytest.fixture(scope="session")
def families(checkpoints: dict[str, Path]) -> Path:
    """A model repository with every family in it."""
    for family, checkpoint in checkpoints.items():
        export(family, checkpoint, "--repository", str(FAMILIES))
    return FAMILIES
