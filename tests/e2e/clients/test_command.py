"""``stepwise`` against a server: its files, and interruption by Ctrl-C."""

import signal
import subprocess
import time

import numpy as np
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
