"""``stepwise`` against a server: its files, and interruption by Ctrl-C."""

import re
import resource
import signal
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

from stepwise.client import metadata
from stepwise.client.cli.main import main
from tests.support.paths import ROOT, STEPWISE
from tests.support.servers import assert_freed, running


def test_the_command_writes_previews(server, tmp_path, capsys):
    options = ["--steps=6", "--preview-every=2", "--num-images=2", "--seed=3"]
    files = ["--output", str(tmp_path / "star.png"), "--previews", str(tmp_path / "previews")]
    assert main(["generate", "mock", "a star", "--url", server.grpc_url, *options, *files]) == 0
    told = capsys.readouterr()
    assert "star.png  seed 3  6 steps" in told.out
    assert " steps/s]" in told.err
    written = sorted(path.name for path in (tmp_path / "previews").iterdir())
    assert written == [f"star{mark}-step-00{step}.png" for mark in ("-1", "") for step in (2, 4)]
    preview = np.asarray(Image.open(tmp_path / "previews" / "star-step-004.png"))
    assert preview.shape == (2, 2, 3)
    assert preview.min() == 4
    assert "preview_every" not in metadata.load(tmp_path / "star-1.png")


LONG = ["--steps", "10000", "--num-images", "2"]


@pytest.mark.parametrize(
    ("command", "more", "older"),
    [
        (["generate", "mock"], LONG, "out.png"),
        (["generate", "mock"], LONG, "out-1.png"),
        (["generate", "mock"], [*LONG, "--previews", "."], "out-1-step-0005.png"),
        (["video", "film"], ["--steps", "10000"], "out.mp4"),
        (["video", "film"], ["--steps", "10000", "--contact-sheet", "keys.png"], "keys.png"),
    ],
)
def test_no_request_is_sent_if_a_file_exists(
    server, tmp_path, monkeypatch, capsys, command, more, older
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / older).write_text("kept")
    words = [*command, "a star", "--url", server.grpc_url]
    assert main([*words, *more]) == 1
    wanted = f"error: {older} exists; give another name, or replace it with --force (force=True)\n"
    assert capsys.readouterr().err == wanted
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(older, "kept")]
    short = ["--num-images=2"] if "mock" in command else []
    sheet = [word for word in more if word in ("--contact-sheet", "keys.png")]
    assert main([*words, *short, *sheet, "--force"]) == 0
    if "step" not in older:
        assert (tmp_path / older).read_bytes() != b"kept"


def test_a_file_is_not_repeated_into_itself(server, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    url = ["--url", server.grpc_url]
    assert main(["video", "film", "a star", "--frames", "5", *url]) == 0
    first = (tmp_path / "out.mp4").read_bytes()
    assert main(["repeat", "out.mp4", *url]) == 1
    assert "out.mp4 exists; give another name" in capsys.readouterr().err
    assert main(["repeat", "out.mp4", *url, "--force"]) == 0
    assert (tmp_path / "out.mp4").read_bytes() == first


def test_an_output_that_cannot_be_written_is_refused_before_the_request(server, tmp_path, capsys):
    (tmp_path / "file").touch()
    words = ["generate", "mock", "a star", "--url", server.grpc_url, *LONG, "--output"]
    assert main([*words, str(tmp_path / "file" / "a.png")]) == 1
    assert capsys.readouterr().err.endswith("file is a file, not a folder\n")
    (tmp_path / "a.png").mkdir()
    assert main([*words, str(tmp_path / "a.png"), "--force"]) == 1
    assert "a.png is a folder; give the name of a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "name"), [(["generate", "mock"], "a.png"), (["video", "film"], "a.mp4")]
)
def test_a_disk_that_fills_up_gives_the_seed(server, tmp_path, command, name):
    done = subprocess.run(
        [STEPWISE, *command, "a star", "--url", server.grpc_url, "--output", tmp_path / name],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64)),
    )
    sentence = done.stderr.split("error: ")[-1]
    path, _, seed = sentence.partition(" cannot be written: File too large; make room, or give ")
    assert path == str(tmp_path / name)
    assert re.fullmatch(r"another place; the same command with --seed \d+ makes this again\n", seed)
    assert "Traceback" not in done.stderr
    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["--steps", "2", "mock", "--", "--a-star"],
        ["mock", "--negative-prompt", "-x", "--steps=2", "--", "--a-star"],
    ],
)
def test_settings_may_come_before_the_prompt(server, tmp_path, words):
    path = tmp_path / "a.png"
    assert main(["generate", "--url", server.grpc_url, "--output", str(path), *words]) == 0
    request = metadata.load(path)
    assert (request["prompt"], request["steps"]) == ("--a-star", "2")


def test_a_repeated_video_may_have_its_settings_first(server, tmp_path):
    first, again = tmp_path / "first.mp4", tmp_path / "again.mp4"
    url = ["--url", server.grpc_url]
    assert main(["video", "--frames", "5", "film", *url, "--output", str(first), "a star"]) == 0
    assert main(["repeat", "--seed", "-1", *url, "--output", str(again), str(first)]) == 0
    seeds = [metadata.load(path)["seed"] for path in (first, again)]
    assert seeds[0] != seeds[1]
    assert -1 not in seeds


def test_an_interrupted_command_stops_its_request(server, tmp_path):
    output = str(tmp_path / "none.png")
    options = ["--url", server.grpc_url, "--steps", "10000", "--output", output]
    command = subprocess.Popen(
        [STEPWISE, "generate", "mock", "a star", *options],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not running(server):
        time.sleep(0.05)
    command.send_signal(signal.SIGINT)
    _, errors = command.communicate(timeout=20)
    assert command.returncode == 130
    assert "cancelled; stopping the request on the server" in errors
    assert "Traceback" not in errors
    assert_freed(server)
