"""Checks of files. The check that makes a picture needs a server and is in tests/e2e."""

import hashlib
import json
import re

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from stepwise.description import formats
from stepwise.server import check
from tests.support.special_files import KINDS

CHECKS = ("format", "configs", "graphs", "tokenizers", "engines")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A valid exported pipeline with one graph; the check by a server is skipped."""
    monkeypatch.setattr(check, "_check_serving", lambda *_: True)
    for model in ("sd3", "sd3_clip_l"):
        (tmp_path / model).mkdir()
        (tmp_path / model / "config.pbtxt").write_text(f'name: "{model}"')
    graph = tmp_path / "sd3_clip_l" / "1"
    graph.mkdir()
    (graph / "model.onnx").write_bytes(b"graph")
    (graph / "model.onnx.data").write_bytes(b"weights")
    digests = [hashlib.sha256(part).hexdigest() for part in (b"graph", b"weights")]
    manifest = {
        "format": formats.REPOSITORY,
        "graphs": {"clip_l": hashlib.sha256("".join(digests).encode()).hexdigest()},
        "tokens": {"clip_l": 77, "t5": 256},
        "missing": ["t5"],
    }
    pipeline = tmp_path / "sd3"
    (pipeline / "manifest.json").write_text(json.dumps(manifest))
    (pipeline / "tokenizers").mkdir()
    Tokenizer(WordLevel({"a": 0}, "a")).save(str(pipeline / "tokenizers" / "clip_l.json"))
    return tmp_path


def test_valid_files_pass(repository, capsys):
    assert check.check(repository)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"ok       sd3 {c}" for c in CHECKS]


@pytest.mark.parametrize(
    ("path", "kind", "group"),
    [
        ("sd3/config.pbtxt", "FIFO", "configs"),
        ("sd3/tokenizers/clip_l.json", "device", "tokenizers"),
        ("sd3/engines.json", "folder", "engines"),
    ],
)
def test_a_special_file_is_a_problem(repository, capsys, path, kind, group):
    (repository / path).unlink(missing_ok=True)
    KINDS[kind](repository / path)
    assert not check.check(repository)
    shown = capsys.readouterr().out
    assert re.search(f"problem  sd3 {group}: .*{path} is a {kind} where a regular file", shown)


@pytest.mark.parametrize(
    ("path", "text", "problem"),
    [
        ("sd3/config.pbtxt", "nonsense: {", "sd3 configs: .*sd3/config.pbtxt"),
        ("sd3/config.pbtxt", 'name: "sd4"', "sd3 configs: .*'sd4'.* must say 'sd3'"),
        ("sd3/config.pbtxt", None, "sd3 configs: .*sd3/config.pbtxt is missing"),
        ("sd3_clip_l/1/model.onnx.data", "other", "sd3 graphs: .*sd3_clip_l/1 has changed"),
        ("sd3/tokenizers/clip_l.json", "{}", "sd3 tokenizers: .*clip_l.json cannot be"),
    ],
)
def test_a_problem_is_one_sentence_that_names_the_file(repository, capsys, path, text, problem):
    if text is None:
        (repository / path).unlink()
    else:
        (repository / path).write_text(text)
    assert not check.check(repository)
    problems = [line for line in capsys.readouterr().out.splitlines() if line.startswith("problem")]
    assert len(problems) == 1
    assert re.search(problem, problems[0])
