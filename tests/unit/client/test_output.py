from argparse import Namespace
from pathlib import Path

import pytest
from tqdm import tqdm

from stepwise.client.errors import InvalidRequest, OutputError
from stepwise.client.events import Event
from stepwise.client.output import advance, check, numbered, output
from stepwise.client.protocol import About

PICTURES = About({"steps": 28, "num_images": 1}, {"num_images": [1, 4]}, (), (), "sd3")
VIDEOS = About({"steps": 50, "frames": 49}, {}, (), (), "easyanimate")


def options(path=None, **given):
    named = {"fps": None, "contact_sheet": None, "previews": None, "force": False, **given}
    return Namespace(output=path and Path(path), **named)


def test_each_kind_of_pipeline_has_its_own_file_types():
    assert output(options(), "sd3", PICTURES) == Path("out.png")
    assert output(options(), "easyanimate", VIDEOS) == Path("out.mp4")
    assert output(options("a.PNG"), "sd3", PICTURES) == Path("a.PNG")
    for name in ("a.mp4", "a.gif", "a.webp", "a.MP4"):
        assert output(options(name, fps=8), "easyanimate", VIDEOS) == Path(name)


@pytest.mark.parametrize(
    ("about", "given", "says"),
    [
        (PICTURES, options("a.webp"), "--output: got a.webp; x makes pictures, so the name"),
        (VIDEOS, options("a"), "x makes videos, so the name must end in .mp4 or .gif or .webp"),
        (PICTURES, options(fps=8), "--fps: is for videos, and x makes pictures"),
        (PICTURES, options(contact_sheet=Path("a.png")), "--contact-sheet: is for videos"),
        (VIDEOS, options(contact_sheet=Path("a.jpg")), "--contact-sheet: got a.jpg; the name must"),
    ],
)
def test_conflicting_options_are_refused(about, given, says):
    with pytest.raises(InvalidRequest, match=says):
        output(given, "x", about)


def test_several_pictures_get_numbered_files():
    assert [numbered(Path("a/b.png"), i).as_posix() for i in (0, 1)] == ["a/b.png", "a/b-1.png"]


@pytest.mark.parametrize(
    ("about", "request_", "given", "older"),
    [
        (PICTURES, {"num_images": "4"}, {}, "b-3.png"),
        (PICTURES, {"num_images": 99}, {}, "b-3.png"),
        (PICTURES, {"num_images": "many"}, {}, "b.png"),
        (PICTURES, {}, {"previews": "p"}, "p/b-step-005.png"),
        (PICTURES, {}, {"previews": "p"}, "p/b-2-step-1000.png"),
        (VIDEOS, {}, {}, "b.png"),
        (VIDEOS, {}, {"contact_sheet": "sheets/a.png"}, "sheets/a.png"),
    ],
)
def test_every_file_is_checked_before_the_request(tmp_path, about, request_, given, older):
    paths = {name: tmp_path / path for name, path in given.items()}
    path = tmp_path / "b.png"
    check(path, request_, about, options(**paths))
    (tmp_path / older).write_text("kept")
    with pytest.raises(OutputError) as error:
        check(path, request_, about, options(**paths))
    assert str(error.value).startswith(f"{tmp_path / older} exists; ")
    check(path, request_, about, options(**paths, force=True))
    assert (tmp_path / older).read_text() == "kept"


def test_files_that_the_request_does_not_write_may_exist(tmp_path):
    for name in ("b-4.png", "b-1.png.txt", "c-step-005.png", "b-step-x.png"):
        (tmp_path / name).touch()
    check(tmp_path / "b.png", {"num_images": 1}, PICTURES, options(previews=tmp_path))


def test_the_bar_counts_the_steps_of_all_pictures():
    def event(index, step):
        return Event("progress", index, step, 10, 7, 0.0, 0.0, 1.0, (), None)

    bar, steps, seen = tqdm(disable=False), {}, []
    for told in (event(0, 1), event(1, 3), event(0, 5), event(1, 10), event(0, 10)):
        advance(bar, steps, told, pictures=2)
        seen.append(bar.n)
    assert seen == [1, 4, 8, 15, 20]
    assert bar.total == 20
    bar.close()
