from argparse import Namespace
from pathlib import Path

import pytest

from stepwise.client.cli.generate import _parser, _with_previews
from stepwise.client.cli.main import main
from stepwise.client.cli.options import parse
from stepwise.client.errors import InvalidRequest


def parsed(*words, command="generate"):
    names = ("file",) if command == "repeat" else ("pipeline", "prompt")
    return parse(_parser(command, ""), words, names)


SEVERAL = {"steps": "4", "negative_prompt": "a, b = c", "seed": "-1", "original_size": "-7,5"}


@pytest.mark.parametrize(
    "words",
    [
        ("sd3", "a star", "--output", "a b.png", "--steps", "4", "--force", "SETTINGS"),
        ("--steps", "4", "sd3", "--force", "a star", "--output=a b.png", "SETTINGS"),
        ("--force", "SETTINGS", "sd3", "--output", "a b.png", "--steps=4", "a star"),
        ("--output=a b.png", "sd3", "--steps=4", "SETTINGS", "--force", "--", "a star"),
        ("--steps=4", "SETTINGS", "--force", "--output", "a b.png", "--", "sd3", "a star"),
    ],
)
def test_options_may_stand_anywhere(words):
    more = ("--negative-prompt=a, b = c", "--seed", "-1", "--original-size", "-7,5")
    at = words.index("SETTINGS")
    options, settings = parsed(*words[:at], *more, *words[at + 1 :])
    assert settings == SEVERAL
    assert (options.pipeline, options.prompt, options.force) == ("sd3", "a star", True)
    assert options.output == Path("a b.png")
    assert options.fps is None


@pytest.mark.parametrize("prompt", ["--steps", "-h", "--steps=4", "-1", "--a red star--", "", "é"])
def test_a_prompt_after_two_dashes_is_literal(prompt):
    options, settings = parsed("sd3", "--seed=7", "--", prompt)
    assert (options.pipeline, options.prompt, settings) == ("sd3", prompt, {"seed": "7"})


@pytest.mark.parametrize("prompt", ["- a list", "--a red star--", "-5 degrees"])
def test_a_text_that_begins_with_dashes_is_no_option(prompt):
    assert parsed(prompt, "sd3", "--seed", "7")[0].pipeline == prompt


def test_a_setting_replaces_what_a_file_holds():
    options, settings = parsed("--prompt", "a moon", "a.png", "--pipeline=sdxl", command="repeat")
    assert options.file == Path("a.png")
    assert settings == {"prompt": "a moon", "pipeline": "sdxl"}


def test_the_last_of_equal_settings_counts():
    assert parsed("sd3", "a star", "--seed", "7", "--seed=8")[1] == {"seed": "8"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("sd3", "a", "red", "star"), "got 'red' after the prompt; put a text with spaces in quo"),
        (("sd3", "a star", "--steps"), "--steps: a value is missing; write --steps=VALUE for one"),
        (("sd3", "--steps", "--seed", "7", "a star"), "--steps: a value is missing"),
        (("--output", "--", "sd3", "a star"), "--output: a value is missing"),
        (("sd3", "a star", "-steps", "4"), "got '-steps'; give settings as --name value, and a"),
        (("sd3", "-"), "got '-'; give settings"),
    ],
)
def test_words_that_are_not_option_and_value_are_refused(words, says, capsys):
    with pytest.raises(InvalidRequest) as error:
        parsed(*words)
    assert str(error.value).startswith(says)
    assert main(["generate", *words]) == 1
    assert capsys.readouterr().err.startswith(f"error: {says}")


@pytest.mark.parametrize(
    ("words", "says"),
    [(("sd3",), "required: prompt"), (("--force=yes", "a", "b"), "--force: ignored explicit")],
)
def test_a_missing_prompt_shows_the_usage(words, says, capsys):
    with pytest.raises(SystemExit):
        parsed(*words)
    assert says in capsys.readouterr().err


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
