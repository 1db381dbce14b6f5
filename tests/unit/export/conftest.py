import shutil
from pathlib import Path

import pytest

from tests.support.paths import ROOT

MINIATURE = ROOT / "miniatures" / "sd3"


@pytest.fixture
def folder(tmp_path):
    """A copy of the SD3 miniature that tests may damage."""
    return Path(shutil.copytree(MINIATURE, tmp_path / "checkpoint"))
