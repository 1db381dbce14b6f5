from pipelines import request_log


def test_a_line_that_cannot_be_written_is_told_of_and_lost(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("STEPWISE_REQUEST_LOG", "/dev/full")
    request_log.write({"id": "one"})
    monkeypatch.setenv("STEPWISE_REQUEST_LOG", str(tmp_path / "gone" / "requests.jsonl"))
    request_log.write({"id": "two"})
    assert "No space left" in caplog.text
    assert "No such file" in caplog.text
