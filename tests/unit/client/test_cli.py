from argparse import Namespace
from pathlib import Path

import pytest

from stepwise.client.cli.generate import _settings, _with_previews
from stepwise.client.cli.main import main
from stepwise.client.errors import InvalidRequest


def test_options_become_settings_by_name():
    words = ["--steps", "20", "--negative-prompt=a, b = c", "--seed", "-1"]
    assert _settings(words) == {"steps": "20", "negative_prompt": "a, b = c", "seed": "-1"}


@pytest.mark.parametrize(
    ("words", "says"), [(["20"], "got '20'"), (["--steps"], "--steps: a value")]
)
def test_words_that_are_not_option_and_value_are_refused(words, says):
    with pytest.raises(InvalidRequest, match=says):
        _settings(words)


def test_an_address_without_a_server_gives_one_sentence_and_status_1(capsys):
    assert main(["generate", "sd3", "a star", "--url", "127.0.0.1:9"]) == 1
    assert "is the server running (stepwise serve)?" in capsys.readouterr().err


def test_previews_are_requested_if_they_have_a_folder():
    folder, none = Namespace(previews=Path("p")), Namespace(previews=None)
    assert _with_previews({"steps": "9"}, folder) == {"steps": "9", "preview_every": "5"}
    assert _with_previews({"preview_every": "2"}, folder) == {"preview_every": "2"}
    assert _with_previews({"steps": "9"}, none) == {"steps": "9"}
    with pytest.raises(InvalidRequest, match="--preview-every: .* --previews DIR"):
        _with_previews({"preview_every": "2"}, none)


@pytest.mark.parametrize("fps", ["0", "51", "8.5", "many"])
def test_unsupported_frame_rates_are_refused(capsys, fps):
    with pytest.raises(SystemExit):
        main(["video", "film", "a star", "--fps", fps])
    assert f"got '{fps}'; allowed are 1 to 50" in capsys.readouterr().err
