import json
import os
from pathlib import Path

import pytest

from stepwise.server.errors import NothingToServe, OldExport, ServerError
from stepwise.server.formats import refuse_old
from stepwise.server.repository import exported
from tests.support.special_files import DEPTH


def export(folder, name, graphs) -> None:
    write(folder / name, name=name, graphs=dict.fromkeys(graphs, "0"))


def write(folder, **fields) -> None:
    """Write a manifest."""
    folder.mkdir()
    manifest = {"graphs": {}, "tokens": {}, "missing": [], **fields}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_pipelines_with_a_common_name_prefix_are_separate(tmp_path):
    export(tmp_path, "sd3", ["transformer"])
    export(tmp_path, "sd3_b", ["transformer"])
    first, second = exported(tmp_path)
    assert first.models == ("sd3", "sd3_transformer")
    assert second.models == ("sd3_b", "sd3_b_transformer")


def test_an_export_of_a_former_layout_is_refused_until_it_is_exported_again(tmp_path):
    """Its manifest was in the folder ``<name>_prepare``."""
    write(tmp_path / "sd3_prepare", name="sd3", family="sd3", checkpoint="folder", format=4)
    (pipeline,) = exported(tmp_path)
    assert pipeline.name == "sd3"
    with pytest.raises(OldExport, match="export it again with stepwise export sd3 --checkpoint"):
        refuse_old([pipeline])
    export(tmp_path, "sd3", ["transformer"])
    (pipeline,) = exported(tmp_path)
    assert pipeline.folder == tmp_path / "sd3"


def test_a_pipeline_may_be_called_like_a_folder_of_the_former_layout(tmp_path):
    for name in ("sd3", "sd3_prepare"):
        export(tmp_path, name, [])
    assert [pipeline.name for pipeline in exported(tmp_path)] == ["sd3", "sd3_prepare"]


def test_a_pipeline_without_manifest_is_not_served(tmp_path):
    export(tmp_path, "sd3", [])
    (tmp_path / "sdxl").mkdir()
    assert [pipeline.name for pipeline in exported(tmp_path)] == ["sd3"]


def test_the_error_of_an_empty_repository_names_the_export_command(tmp_path):
    with pytest.raises(NothingToServe, match="stepwise export"):
        exported(tmp_path)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (os.mkfifo, "is a FIFO where a regular file should be"),
        (Path.mkdir, "is a folder where a regular file should be"),
        (Path.touch, "is empty"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device where a regular file should be"),
        (lambda path: path.write_text("{"), "is not valid JSON"),
        (lambda path: path.write_text("[" * DEPTH + "]" * DEPTH), "is nested deeper than"),
    ],
)
def test_a_manifest_that_no_program_should_read_is_named(tmp_path, make, problem):
    path = tmp_path / "sd3" / "manifest.json"
    path.parent.mkdir()
    make(path)
    with pytest.raises(ServerError, match=f"{path} {problem}.*: export the pipeline again."):
        exported(tmp_path)


@pytest.mark.parametrize("text", ["[]", '{"graphs": {}}'])
def test_a_broken_manifest_is_named(tmp_path, text):
    (tmp_path / "sd3").mkdir()
    (tmp_path / "sd3" / "manifest.json").write_text(text)
    with pytest.raises(ServerError, match=r"sd3/manifest.json is not a manifest"):
        exported(tmp_path)
