from argparse import Namespace
from pathlib import Path

import pytest
from tqdm import tqdm

from client.__main__ import _advance, _path, _settings, _with_previews, main
from client.errors import InvalidRequest
from client.events import Event


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


def test_previews_are_asked_for_if_there_is_a_folder_for_them():
    folder, none = Namespace(previews=Path("p")), Namespace(previews=None)
    assert _with_previews({"steps": "9"}, folder) == {"steps": "9", "preview_every": "5"}
    assert _with_previews({"preview_every": "2"}, folder) == {"preview_every": "2"}
    assert _with_previews({"steps": "9"}, none) == {"steps": "9"}
    with pytest.raises(InvalidRequest, match="--preview-every: say where .* --previews DIR"):
        _with_previews({"preview_every": "2"}, none)


def test_the_bar_counts_the_steps_of_all_pictures():
    def event(index, step):
        return Event("progress", index, step, 10, 7, 0.0, 0.0, 1.0, (), None)

    bar, steps, seen = tqdm(disable=False), {}, []
    for told in (event(0, 1), event(1, 3), event(0, 5), event(1, 10), event(0, 10)):
        _advance(bar, steps, told, pictures=2)
        seen.append(bar.n)
    assert seen == [1, 4, 8, 15, 20]
    assert bar.total == 20
    bar.close()
