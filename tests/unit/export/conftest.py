import shutil
from pathlib import Path

import pytest

MINIATURE = Path(__file__).parents[3] / "miniatures" / "sd3"


@pytest.fixture
def folder(tmp_path):
    """A copy of the SD3 miniature, to be broken."""
    return Path(shutil.copytree(MINIATURE, tmp_path / "checkpoint"))
