"""``Event.save`` writes the files that ``stepwise generate`` and ``video`` write."""

import asyncio

import numpy as np
import pytest
from PIL import Image

from stepwise.client import AsyncClient, InvalidRequest, OutputError, metadata
from stepwise.client.cli.main import main
from stepwise.client.media import video
from tests.unit.client.test_video import decoded

DEFAULTS = {"steps": 4, "sampler": "euler", "guidance_scale": 6.0}


def test_a_saved_picture_holds_its_request(client, tmp_path):
    asked = {"steps": np.int32(3), "num_images": 2, "negative_prompt": "é", "client": "studio"}
    first, second = client.pictures("mock", "a star", seed=-1, **asked)
    second.save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), second.image)
    own = {"steps": 3, "num_images": 1, "seed": first.seed + 1, "height": 8, "width": 8}
    named = {"pipeline": "mock", "prompt": "a star", "negative_prompt": "é"}
    assert metadata.load(tmp_path / "a.png") == {**DEFAULTS, **named, **own}
    with pytest.raises(OutputError, match="a.png exists"):
        first.save(str(tmp_path / "a.png"))
    first.save(str(tmp_path / "a.png"), force=True)
    assert metadata.load(tmp_path / "a.png")["seed"] == first.seed


@pytest.mark.parametrize("suffix", video.KINDS)
def test_a_saved_video_is_the_file_of_the_command(server, client, tmp_path, suffix):
    saved, made, again = (tmp_path / f"{name}{suffix}" for name in ("saved", "made", "again"))
    client.video("film", "a star", frames=5, seed=7).save(saved)
    words = ["video", "film", "a star", "--url", server.grpc_url, "--seed", "7", "--frames", "5"]
    assert main([*words, "--output", str(made)]) == 0
    assert np.array_equal(decoded(saved), decoded(made))
    stored = [{**metadata.load(path), "frames": 5} for path in (saved, made)]
    assert stored[0] == stored[1]
    assert main(["repeat", str(saved), "--url", server.grpc_url, "--output", str(again)]) == 0
    assert np.array_equal(decoded(again), decoded(saved))


def test_the_asyncio_client_saves_as_well(server, tmp_path):
    async def run():
        async with AsyncClient(server.grpc_url) as client:
            (picture,) = await client.pictures("mock", "a star", seed=7)
            picture.save(tmp_path / "a.png")
            (await client.video("film", "a star", seed=7, frames=5)).save(tmp_path / "a.webp")

    asyncio.run(run())
    assert metadata.load(tmp_path / "a.png")["prompt"] == "a star"
    assert metadata.load(tmp_path / "a.webp")["seed"] == 7


def test_a_video_from_an_array_is_repeated_with_a_file(server, client, tmp_path, capsys):
    start = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    path, again = tmp_path / "a.webp", tmp_path / "again.webp"
    client.video("film", "a star", frames=5, start_image=start).save(path)
    words = ["repeat", str(path), "--url", server.grpc_url, "--output", str(again)]
    assert main(words) == 1
    says = "start_image: the input picture was an array, without a file; give it again with --start"
    assert says in capsys.readouterr().err
    Image.fromarray(start).save(tmp_path / "start.png")
    assert main([*words, "--start-image", str(tmp_path / "start.png")]) == 0
    assert np.array_equal(decoded(again), decoded(path))


def test_an_event_that_is_no_whole_result_is_not_saved(client, tmp_path):
    progress, *_ = client.generate("mock", "a star")
    *_, piece = client.generate("film", "a star", frames=5)
    (picture,) = client.pictures("mock", "a star")
    whole = client.video("film", "a star", frames=5)
    for event, name, says in (
        (progress, "a.png", "save: got a progress event; only results can be saved"),
        (
            piece,
            "a.mp4",
            r"save: got 4 of the video's 5 frames; call video\(\) for an event with all",
        ),
        (picture, "a.jpg", "a.jpg; the name of a picture's file must end in .png"),
        (whole, "a.png", "a.png; the name of a video's file must end in .mp4 or .gif or .webp"),
    ):
        with pytest.raises(InvalidRequest, match=says):
            event.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
