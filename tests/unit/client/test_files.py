"""Output files: complete or absent, never over an existing file, and one sentence for an error."""

import contextlib
import itertools
import os
import pathlib
import resource
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stepwise.client import contact_sheet, files
from stepwise.client.errors import OutputError
from stepwise.client.events import Event
from stepwise.client.media import png, video
from tests.unit.client.test_video import REQUEST, slices

NOISE = np.random.default_rng(0).integers(0, 256, (9, 128, 128, 3), np.uint8)
PICTURE = Event("result", 0, 4, 4, 7, 1.0, 2.0, 1.0, (), NOISE[0])
# Each writes a file of more than 16 kB.
WRITERS = {
    "a.png": lambda path, **more: png.save(PICTURE, path, REQUEST, **more),
    "sheet.png": lambda path, **more: contact_sheet.save(dict(enumerate(NOISE)), path, **more),
    **{
        f"a{suffix}": lambda path, **more: video.save(
            slices(NOISE), path, {**REQUEST, "frames": 9}, **more
        )
        for suffix in video.KINDS
    },
}


@contextmanager
def limited(most):
    """Files of this process may have at most ``most`` bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_exists_is_replaced_only_by_force(tmp_path, name):
    path = tmp_path / name
    path.write_text("kept")
    with pytest.raises(OutputError) as error:
        WRITERS[name](path)
    says = "exists; give another name, or replace it with --force (force=True)"
    assert str(error.value) == f"{path} {says}"
    assert path.read_text() == "kept"
    WRITERS[name](path, force=True)
    assert path.stat().st_size > 16_000
    assert list(tmp_path.iterdir()) == [path]


@contextmanager
def interrupted(at):
    """Ctrl-C before the given instruction of the output files' code, counted from one."""
    done = 0

    def trace(frame, event, _):
        nonlocal done
        if frame.f_code.co_filename not in (files.__file__, contextlib.__file__, pathlib.__file__):
            return None
        frame.f_trace_opcodes = True
        done += event == "opcode"
        if done == at:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("force", [False, True])
def test_an_interrupt_at_any_instruction_before_a_file_is_written_leaves_none(tmp_path, force):
    """Even between the creation of a file and the block that removes it."""
    for at in itertools.count(1):
        begun = False
        with (
            suppress(KeyboardInterrupt),
            interrupted(at),
            files.written(tmp_path / "a.png", force=force),
        ):
            sys.settrace(None)
            begun = True
        (tmp_path / "a.png").unlink(missing_ok=True)
        assert list(tmp_path.iterdir()) == [], f"interrupted before instruction {at}"
        if begun:
            break
    print(f"{at - 1} instructions")
    assert at > 100


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("force", [False, True])
def test_a_disk_that_fills_up_leaves_no_part_of_a_file(tmp_path, name, force):
    path = tmp_path / name
    if force:
        path.write_text("kept")
    with limited(4096), pytest.raises(OutputError) as error:
        WRITERS[name](path, force=force)
    assert str(error.value).startswith(f"{path} cannot be written: File too large; make room")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(name, "kept")] * force


def test_a_file_that_appears_meanwhile_is_kept(tmp_path):
    path = tmp_path / "a.png"

    def write_late():
        with files.written(path) as partial:
            partial.write_text("new")
            path.write_text("another program's")

    with pytest.raises(OutputError, match="a.png exists"):
        write_late()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.png", "another program's")]


def test_an_interruption_leaves_no_file(tmp_path):
    def interrupted():
        with files.written(tmp_path / "a.png") as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    path = tmp_path / "a.png"
    with files.written(path) as first:
        first.write_text("first")
        with files.written(path, force=True) as second:
            second.write_text("second")
        assert path.read_text() == "second"
        path.unlink()
    assert path.read_text() == "first"


def test_a_new_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    WRITERS["a.png"](tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_force_follows_a_link_and_a_dangling_link_is_a_file(tmp_path):
    link, target = tmp_path / "link.png", tmp_path / "target.png"
    link.symlink_to(target)
    with pytest.raises(OutputError, match="link.png exists"):
        WRITERS["a.png"](link)
    WRITERS["a.png"](link, force=True)
    assert link.is_symlink()
    assert Image.open(target).size == (128, 128)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("folder", "is a folder; give the name of a file"),
        ("file/a.png", "file is a file, not a folder"),
        ("file/deeper/a.png", "file is a file, not a folder"),
        (f"{'a' * 250}.png", "cannot be written: File name too long; make room, or give another"),
        ("/proc/a.png", "cannot be written: "),
        ("pipe", "is not a regular file; give the name of another file"),
    ],
)
def test_a_place_that_cannot_hold_a_file_is_refused_in_advance(tmp_path, name, says):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError) as error:
        files.check([tmp_path / name], force=True)
    assert str(error.value).startswith(str(tmp_path / name))
    assert says in str(error.value)


def test_a_check_makes_folders_and_no_files(tmp_path):
    paths = [tmp_path / "new" / "deep" / "a.png", tmp_path / "b.png"]
    files.check(paths)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    assert paths[0].parent.is_dir()
    Path(paths[1]).touch()
    with pytest.raises(OutputError, match="b.png exists"):
        files.check(paths)
