"""Generated damage: each checkpoint either loads or is refused with an error that names a place.

``DAMAGE_EXAMPLES`` sets their number; ``make test-all`` tries 40 and ``make fuzz`` 200.
"""

import os
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from stepwise.export.cli import parsed, run
from stepwise.export.errors import CheckpointError
from stepwise.export.loading.loader import load
from stepwise.export.loading.source import open_checkpoint
from stepwise.export.preflight.smoke_test import rehearse
from stepwise.export.repository.triton_configs import write_committed
from stepwise.families import FAMILIES
from tests.support.damage import damages
from tests.support.family import key
from tests.support.paths import ROOT, STEPWISE
from tests.unit.export.conftest import MINIATURE

SD3 = FAMILIES["sd3"]
EXAMPLES = int(os.environ.get("DAMAGE_EXAMPLES", "20"))
LIMIT_SECONDS = 60
WHAT_TO_DO = ("should", "download", "allowed", "give", "can be exported")


def content(folder):
    return {p: p.is_file() and (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*")}


def sentence(folder):
    """The error of a checkpoint, or None if all steps before its graphs succeed."""
    try:
        checkpoint = open_checkpoint(folder, SD3)
        key(checkpoint)
        rehearse(checkpoint)
    except CheckpointError as error:
        return str(error)
    for component in SD3.components:
        parameters = list(load(checkpoint, component).parameters())
        assert not any(parameter.is_meta for parameter in parameters)
        assert all(torch.isfinite(parameter).all() for parameter in parameters)
    return None


def arguments(folder, repository):
    return parsed(["sd3", "--checkpoint", str(folder), "--repository", str(repository)])


@pytest.fixture
def repository(tmp_path):
    """A repository of an earlier export, with the kinds of files that a failing one could harm."""
    folder = tmp_path / "repository"
    write_committed(SD3, "sd3", folder)
    (folder / "sd3" / "manifest.json").write_text("{}")
    (folder / "sd3_clip_l" / "1").mkdir(parents=True)
    (folder / "sd3_clip_l" / "1" / "model.onnx").write_bytes(b"a graph")
    return folder


def test_damage_is_named_and_does_not_change_the_repository(repository, tmp_path):
    before, counts = content(repository), Counter()
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"more than {LIMIT_SECONDS} s"))

    @settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(damages())
    def attempt(damage):
        kind, given_arguments, do = damage
        folder = Path(shutil.copytree(MINIATURE, tmp_path / "checkpoint"))
        try:
            do(folder)
            signal.alarm(LIMIT_SECONDS)
            message = sentence(folder)
            signal.alarm(0)
            counts[f"{kind} {'sound' if message is None else 'refused'}"] += 1
            if os.environ.get("DAMAGE_EXAMPLES"):
                print(f"{kind}{given_arguments}: {message}")
            if message is not None:
                assert str(folder) in message
                assert "\n" not in message
                assert len(message) < 700
                assert any(word in message for word in WHAT_TO_DO)
                with pytest.raises(CheckpointError):
                    run(arguments(folder, repository))
                assert content(repository) == before
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            folder.unlink(missing_ok=True)

    attempt()
    refused = sum(count for kind, count in counts.items() if kind.endswith("refused"))
    print(f"{refused} refused, {counts.total() - refused} sound: {dict(sorted(counts.items()))}")
    assert refused > counts.total() // 3


@pytest.mark.parametrize("name", ["vae/config.json", "tokenizer_2/tokenizer.json", "transformer"])
def test_the_command_names_damage_in_one_line(folder, tmp_path, name):
    (folder / name).rename(tmp_path / "lost")
    command = [STEPWISE, "export", "sd3", "--checkpoint", str(folder)]
    command += ["--repository", str(tmp_path / "repository")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(done.stderr)
    assert done.returncode == 2
    assert str(folder / name).removesuffix("/tokenizer.json") in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "repository").exists()
