import json
import shutil
from pathlib import Path

import pytest

from stepwise.export.loading.source import open_checkpoint
from stepwise.export.repository.layout import Target
from stepwise.export.tensorrt.build import FILE, build_engines
from stepwise.families import FAMILIES
from stepwise.server.engines import capability_problem, engine_problems, version_problem
from stepwise.server.repository import exported
from tests.support.paths import ROOT

MINIATURE = ROOT / "miniatures" / "sd3"
CLIP = "sd3_clip_l/1"


@pytest.fixture(scope="module")
def built(repository, tmp_path_factory):
    """The miniature with an engine for each component."""
    path = Path(shutil.copytree(repository, tmp_path_factory.mktemp("built") / "repository"))
    build_engines(
        Target(open_checkpoint(MINIATURE, FAMILIES["sd3"]), path, "sd3"), "tensorrt-rtx", "8.9"
    )
    return path


@pytest.fixture
def copy(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / "repository"))


def problems(repository):
    (pipeline,) = exported(repository)
    return list(engine_problems(pipeline))


def edit(path, change):
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def test_fresh_engines_have_no_problems(copy):
    assert problems(copy) == []


def test_graphs_without_engines_have_no_problems(copy):
    (copy / "sd3" / FILE).unlink()
    assert problems(copy) == []


def test_an_engine_of_another_version_is_named(copy):
    edit(copy / "sd3" / FILE, lambda records: records[0].update(version="1.0.0.0"))
    (problem,) = problems(copy)
    assert f"{CLIP}/model.rtx was built by tensorrt_rtx 1.0.0.0, but 1.7" in problem
    assert "build it again" in problem


def test_an_engine_of_another_graph_is_named(copy):
    manifest = copy / "sd3" / "manifest.json"
    edit(manifest, lambda fields: fields["graphs"].update(clip_l="another"))
    (problem,) = problems(copy)
    assert f"{CLIP}/model.rtx was built from another graph" in problem


def test_a_damaged_and_a_missing_engine_are_named(copy):
    (copy / CLIP / "model.rtx").write_bytes(b"cut short")
    (copy / "sd3_t5/1/model.rtx").unlink()
    damaged, missing = problems(copy)
    assert f"{CLIP}/model.rtx has changed since it was built" in damaged
    assert "sd3_t5/1/model.rtx is missing" in missing


def test_an_invalid_record_is_named(copy):
    (copy / "sd3" / FILE).write_text("[{}]")
    (problem,) = problems(copy)
    assert "is not a record of engines" in problem


def test_an_engine_for_another_gpu_is_named(copy):
    record = json.loads((copy / "sd3" / FILE).read_text())[0]
    assert capability_problem(record, None) is None
    assert capability_problem(record, "8.9") is None
    assert "compute capability 8.9, but this machine's GPU has 9.0" in str(
        capability_problem(record, "9.0")
    )


def test_an_uninstalled_library_is_not_compared(copy):
    record = json.loads((copy / "sd3" / FILE).read_text())[0]
    assert version_problem(record, None) is None
