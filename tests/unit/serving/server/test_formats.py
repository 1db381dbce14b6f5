"""A pipeline or engine of another format is refused; the error gives the command to rebuild it."""

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest

from stepwise.description import formats
from stepwise.export.cli import parsed
from stepwise.server import check
from stepwise.server.errors import NothingToServe, OldExport, ServerError
from stepwise.server.formats import refuse_old
from stepwise.server.process import serving
from stepwise.server.repository import exported


@pytest.fixture
def copy(repository, tmp_path):
    return Path(shutil.copytree(repository, tmp_path / "repository"))


def edit(copy, **fields):
    path = copy / "sd3" / "manifest.json"
    given = json.loads(path.read_text())
    path.write_text(json.dumps({**given, **fields}))
    return given


def refused(copy):
    with pytest.raises(OldExport) as error, serving(copy):
        pass
    return str(error.value)


def test_a_fresh_export_is_served(copy):
    refuse_old(exported(copy))


def test_a_repository_without_a_format_is_refused_by_both(copy, capsys):
    given = edit(copy)
    del given["format"], given["formats"]
    (copy / "sd3" / "manifest.json").write_text(json.dumps(given))
    message = refused(copy)
    assert "the format of its repository is None, but this version serves" in message
    assert "\n" not in message
    assert not check.check(copy)
    assert f"problem  sd3 format: {message}" in capsys.readouterr().out


def test_a_record_of_engines_that_no_program_should_read_is_named(copy):
    os.mkfifo(copy / "sd3" / "engines.json")
    with pytest.raises(ServerError, match="engines.json is not a record of engines .*a FIFO where"):
        refuse_old(exported(copy))


def test_a_component_of_another_format_is_refused(copy):
    given = edit(copy)
    edit(copy, formats={**given["formats"], "t5": "0"})
    assert "the format of its t5 is 0, but this version serves 1" in refused(copy)


def test_the_command_in_the_error_repeats_the_export(copy):
    edit(copy, format=0, loras=["style file.safetensors:0.5"], precision="fp16")
    words = shlex.split(refused(copy).partition("export it again with ")[2])
    assert words[:2] == ["stepwise", "export"]
    arguments = parsed(words[2:])
    assert (arguments.pipeline, arguments.name, arguments.precision) == ("sd3", "sd3", "fp16")
    assert (
        arguments.checkpoint
        == json.loads((copy / "sd3" / "manifest.json").read_text())["checkpoint"]
    )
    assert arguments.repository == copy
    assert arguments.lora == ["style file.safetensors:0.5"]


def test_an_engine_of_another_format_is_refused(copy):
    record = {
        "format": formats.ENGINE - 1,
        "file": "sd3_t5/1/model.rtx",
        "library": "tensorrt_rtx",
        "compute_capability": "8.9",
    }
    (copy / "sd3" / "engines.json").write_text(json.dumps([record]))
    message = refused(copy)
    assert f"model.rtx has the format {formats.ENGINE - 1}, but this version serves" in message
    words = shlex.split(message.partition("build it again with ")[2])
    assert parsed(words[2:]).target == "tensorrt-rtx"


def test_the_error_of_a_missing_pipeline_lists_those_that_exist(copy):
    with pytest.raises(NothingToServe, match="No pipeline called 'sdxl' .*; there is sd3"):
        exported(copy, ["sdxl"])
    assert [pipeline.name for pipeline in exported(copy, ["sd3"])] == ["sd3"]
