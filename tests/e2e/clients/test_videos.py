"""Videos that a server streams slice by slice to both clients and to the command line."""

import asyncio
import re
import signal
import subprocess
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from stepwise.client import (
    AsyncClient,
    ClientError,
    InvalidRequest,
    RequestFailed,
    contact_sheet,
    metadata,
)
from stepwise.client.cli.main import main
from stepwise.client.media import video
from tests.support.paths import ROOT, STEPWISE
from tests.support.scenes import scene
from tests.support.servers import assert_freed, running
from tests.unit.client.test_video import decoded, psnr

HEIGHT, WIDTH = 48, 64
FLOOR = 35.0  # dB; 4:2:0 colour alone limits this scene to about 40


def test_both_clients_stream_a_video_slice_by_slice(server, client):
    async def run():
        other = AsyncClient(server.grpc_url)
        events = [event async for event in other.generate("film", "a star", **settings)]
        return events, await other.video("film", "a star", **settings)

    settings = {"steps": 4, "seed": 7, "frames": 13, "preview_every": 2, "guidance_rescale": 0.5}
    events = list(client.generate("film", "a star", **settings))
    assert [(e.kind, e.step, e.index, shape(e)) for e in events] == [
        ("progress", 1, 0, None),
        ("preview", 2, 0, (1, 12, 16, 3)),
        ("progress", 3, 0, None),
        ("preview", 4, 0, (1, 12, 16, 3)),
        ("result", 4, 0, (1, HEIGHT, WIDTH, 3)),
        *(("result", 4, first, (4, HEIGHT, WIDTH, 3)) for first in (1, 5, 9)),
    ]
    assert {event.asked_seed for event in events} == {7}
    assert all(event.image is None for event in events)
    wanted = scene(13, HEIGHT, WIDTH, 7)
    whole = client.video("film", "a star", **settings)
    assert (whole.index, whole.kind, whole.seed) == (0, "result", 7)
    assert np.array_equal(whole.frames, wanted)
    async_events, async_whole = asyncio.run(run())
    assert list(map(repr, async_events)) == list(map(repr, events))
    assert np.array_equal(async_whole.frames, wanted)


def shape(event):
    return None if event.frames is None else event.frames.shape


def test_pictures_and_videos_have_their_own_methods(server, client):
    other = AsyncClient(server.grpc_url)
    for call in (
        lambda: client.pictures("film", "a star"),
        lambda: asyncio.run(other.pictures("film", "a star")),
    ):
        with pytest.raises(InvalidRequest, match=r"film makes videos, no pictures; .* video\(\)"):
            call()
    with pytest.raises(InvalidRequest, match=r"mock makes pictures, no videos; .* pictures\(\)"):
        client.video("mock", "a star")
    assert (client.about("film").makes_videos, client.about("mock").makes_videos) == (True, False)
    assert client.about("film").images == ("start_image", "end_image")


def test_input_images_arrive_unchanged(client):
    start, end = np.random.default_rng(0).integers(0, 256, (2, 30, 41, 3), np.uint8)
    frames = client.video("film", "a star", frames=5, start_image=start, end_image=end).frames
    assert frames.shape == (5, 30, 41, 3)
    assert np.array_equal(frames[0], start)
    assert np.array_equal(frames[-1], end)


def film(server, *options, prompt="a star"):
    return main(["video", "film", prompt, "--url", server.grpc_url, *map(str, options)])


@pytest.mark.parametrize("suffix", video.KINDS)
def test_the_command_writes_a_video_that_can_be_repeated(server, tmp_path, capsys, suffix):
    first, again = tmp_path / f"first{suffix}", tmp_path / f"again{suffix}"
    asked = ("--frames", 13, "--fps", 12, "--seed", 7)
    assert film(server, *asked, "--output", first, prompt="é, a star") == 0
    told = capsys.readouterr()
    assert f"first{suffix}  seed 7  4 steps  13 frames at 12 fps, the first after 0." in told.out
    assert " steps/s]" in told.err
    assert " frames/s]" in told.err
    request = metadata.load(first)
    assert (request["prompt"], request["fps"], int(request["frames"])) == ("é, a star", 12, 13)
    assert (request["height"], request["width"]) == (HEIGHT, WIDTH)
    closeness = psnr(decoded(first), scene(13, HEIGHT, WIDTH, 7))
    floor = {".mp4": FLOOR, ".gif": 25.0, ".webp": np.inf}[suffix]
    print(f"{suffix}: {closeness:.1f} dB, floor {floor}")
    assert closeness >= floor
    assert main(["repeat", str(first), "--url", server.grpc_url, "--output", str(again)]) == 0
    assert again.read_bytes() == first.read_bytes()
    assert sorted(tmp_path.iterdir()) == sorted([first, again])


def test_a_video_goes_to_out_mp4_by_default(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert film(server, "--frames", 5) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    with av.open("out.mp4") as container:
        assert container.streams.video[0].average_rate == 8
    assert len(decoded(tmp_path / "out.mp4")) == 5


def test_previews_and_a_contact_sheet(server, tmp_path):
    options = ("--frames", 49, "--seed", 3, "--preview-every", 2)
    paths = ("--output", tmp_path / "video.webp", "--contact-sheet", tmp_path / "sheets" / "a.png")
    assert film(server, *options, *paths, "--previews", tmp_path / "previews") == 0
    written = sorted(path.name for path in (tmp_path / "previews").iterdir())
    assert written == ["video-step-002.png", "video-step-004.png"]
    assert Image.open(tmp_path / "previews" / "video-step-002.png").size == (16, 12)
    made = np.asarray(Image.open(tmp_path / "sheets" / "a.png"))
    frames = scene(49, HEIGHT, WIDTH, 3)
    assert made.shape == (2 * HEIGHT + 4, 4 * WIDTH + 12, 3)
    assert np.array_equal(made[:HEIGHT, :WIDTH], frames[0])
    assert np.array_equal(made[-HEIGHT:, -WIDTH:], frames[48])
    assert contact_sheet.keys(49) == (0, 7, 14, 21, 27, 34, 41, 48)


def test_a_video_from_an_image_is_repeated_while_the_image_exists(
    server, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(picture).save("start.png")
    asked = ("--frames", 5, "--height", 32, "--width", 48, "--start-image", "start.png")
    assert film(server, *asked, "--output", "first.webp") == 0
    resized = np.asarray(Image.fromarray(picture).resize((48, 32)))
    assert np.array_equal(decoded("first.webp")[0], resized)
    repeat = ["repeat", "first.webp", "--url", server.grpc_url, "--output", "again.webp"]
    repeat += ["--force"]
    assert main(repeat) == 0
    assert np.array_equal(decoded("again.webp"), decoded("first.webp"))
    Path("start.png").rename("moved.png")
    assert main(repeat) == 1
    gone = f"start_image: the input picture {tmp_path / 'start.png'} is missing; give it again"
    assert gone in capsys.readouterr().err
    assert main([*repeat, "--start-image", "moved.png"]) == 0
    assert np.array_equal(decoded("again.webp"), decoded("first.webp"))
    Image.fromarray(picture[::-1]).save("start.png")
    assert main(repeat) == 1
    said = capsys.readouterr().err
    assert "has changed; give it again with --start-image FILE" in said


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (
            ["video", "film", "--output", "a.png"],
            "got a.png; film makes videos, so the name must end in .mp4 or",
        ),
        (
            ["generate", "mock", "--output", "a.mp4"],
            "got a.mp4; mock makes pictures, so the name must end in .png",
        ),
        (["generate", "mock", "--fps", "9"], "--fps: is for videos, and mock makes pictures"),
        (
            ["generate", "mock", "--contact-sheet", "a"],
            "--contact-sheet: is for videos",
        ),
        (["generate", "film"], "film makes videos: use stepwise video"),
        (["video", "mock"], "mock makes pictures: use stepwise generate"),
        (["video", "film", "--contact-sheet", "a.gif"], "got a.gif; the name must end in .png"),
        (
            ["video", "film", "--start-image", "none.png"],
            "start_image: none.png cannot be read as a pict",
        ),
        (
            ["video", "film", "--start-image", "text.png"],
            "start_image: text.png cannot be read as a pict",
        ),
        (
            ["video", "film", "--frames", "many"],
            "frames: got 'many'; a number of type INT32 is needed",
        ),
        (
            ["generate", "mock", "--start-image", "text.png"],
            "start_image: mock has no such setting",
        ),
    ],
)
def test_conflicting_options_give_one_sentence(
    server, tmp_path, monkeypatch, capsys, command, says
):
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("no picture")
    name, pipeline, *options = command
    assert main([name, pipeline, "a star", "--url", server.grpc_url, *options]) == 1
    assert says in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["text.png"]


@pytest.mark.parametrize("suffix", video.KINDS)
def test_a_video_that_breaks_leaves_no_file(server, tmp_path, capsys, suffix):
    output = tmp_path / f"video{suffix}"
    assert film(server, "--output", output, prompt="breaks") == 1
    assert "the decoder broke" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_video_that_breaks_is_an_error_in_both_clients(server, client):
    for call in (
        lambda: client.video("film", "breaks"),
        lambda: asyncio.run(AsyncClient(server.grpc_url).video("film", "breaks")),
    ):
        with pytest.raises(RequestFailed, match="the decoder broke"):
            call()


def test_a_video_interrupted_while_decoding_leaves_no_file(server, tmp_path):
    options = ["--url", server.grpc_url, "--frames", "145", "--output", str(tmp_path / "video.mp4")]
    command = subprocess.Popen(
        [STEPWISE, "video", "film", "stalls", *options],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (names := [path.name for path in tmp_path.iterdir()]):
        time.sleep(0.01)
    assert [re.sub(r"[0-9a-f]{8}", "token", name) for name in names] == [".video.mp4.token.part"]
    command.send_signal(signal.SIGINT)
    _, errors = command.communicate(timeout=20)
    assert command.returncode == 130
    assert "cancelled; stopping the request on the server" in errors
    assert list(tmp_path.iterdir()) == []
    assert_freed(server)


def test_a_video_is_cancelled_between_its_slices(server, client):
    events = client.generate("film", "stalls", frames=145)
    assert next(event for event in events if event.kind == "result").index == 0
    assert running(server) == (events.request_id,)
    events.cancel()
    with pytest.raises(ClientError, match="stopped at frame"):
        list(events)
    assert_freed(server)
