import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwise.request import log


def test_a_line_that_cannot_be_written_is_reported_and_dropped(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("STEPWISE_REQUEST_LOG", "/dev/full")
    log.write({"id": "one"})
    monkeypatch.setenv("STEPWISE_REQUEST_LOG", str(tmp_path / "gone" / "requests.jsonl"))
    log.write({"id": "two"})
    assert "No space left" in caplog.text
    assert "No such file" in caplog.text


@pytest.mark.parametrize("code", [0x0B, 0x0C, 0x1C, 0x1D, 0x1E, 0x7F, 0x85, 0x9B, 0x2028, 0x2029])
def test_text_of_a_client_cannot_end_a_line(monkeypatch, tmp_path, code):
    path = tmp_path / "requests.jsonl"
    monkeypatch.setenv("STEPWISE_REQUEST_LOG", str(path))
    name = f"é 北京{chr(code)}forged"
    for _ in range(2):
        log.write({"client": name})
    text = path.read_text()
    lines = text.splitlines()
    assert [json.loads(line)["client"] for line in lines] == [name, name]
    assert "é 北京" in text
    assert chr(code) not in text


@given(st.text())
def test_each_record_is_one_line_by_any_line_break(name):
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "requests.jsonl"
        patch.setenv("STEPWISE_REQUEST_LOG", str(path))
        log.write({"client": name})
        (line,) = path.read_bytes().decode().splitlines()
        assert json.loads(line)["client"] == name
