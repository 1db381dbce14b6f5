import json
import shutil
from pathlib import Path

import pytest

from stepwise.export.errors import CheckpointError
from tests.support.paths import ROOT

MINIATURE = ROOT / "miniatures" / "sd3"


@pytest.fixture
def folder(tmp_path):
    """A copy of the SD3 miniature that tests may damage."""
    return Path(shutil.copytree(MINIATURE, tmp_path / "checkpoint"))


def edit(path, change):
    """Apply ``change`` to the contents of a JSON file."""
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def sentence(action):
    """The message of the error that ``action`` raises, which must be one short sentence."""
    with pytest.raises(CheckpointError) as error:
        action()
    message = str(error.value)
    print(message)
    assert "\n" not in message
    assert len(message) < 700
    return message
