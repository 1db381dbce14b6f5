from pathlib import Path

import pytest

from client.__main__ import _path, _settings, main
from client.errors import InvalidRequest


def test_options_become_settings_by_name():
    words = ["--steps", "20", "--negative-prompt=a, b = c", "--seed", "-1"]
    assert _settings(words) == {"steps": "20", "negative_prompt": "a, b = c", "seed": "-1"}


@pytest.mark.parametrize(
    ("words", "says"), [(["20"], "got '20'"), (["--steps"], "--steps: a value")]
)
def test_a_command_line_that_is_no_pairs_is_refused(words, says):
    with pytest.raises(InvalidRequest, match=says):
        _settings(words)


def test_several_pictures_get_files_of_their_own():
    assert [_path(Path("a/b.png"), i).as_posix() for i in (0, 1)] == ["a/b.png", "a/b-1.png"]


def test_nobody_at_the_address_is_one_sentence_and_status_1(capsys):
    assert main(["sd3", "a star", "--url", "127.0.0.1:9"]) == 1
    assert "is the server running (python -m server)?" in capsys.readouterr().err
