import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The model repository with the SD3 miniature in it; quick if it is there already."""
    command = [sys.executable, "-m", "export", "sd3", "--checkpoint", "miniatures/sd3"]
    subprocess.run(command, cwd=ROOT, check=True)
    return ROOT / "model_repository"
