import asyncio
import threading
from contextlib import aclosing

import numpy as np
import pytest
from PIL import Image

from stepwise.client import AsyncClient, Cancelled, Client, TimedOut, metadata
from stepwise.client.cli.main import main
from tests.e2e.test_serving import logged

PROMPT = "a large red star in the top left on a white background"


def test_the_command_writes_pngs_and_prints_their_seeds(server, client, tmp_path, capsys):
    path = tmp_path / "star.png"
    options = ["--steps", "4", "--seed", "7", "--num-images", "2", "--output", str(path)]
    assert main(["generate", "sd3", PROMPT, "--url", server.grpc_url, *options]) == 0
    told = capsys.readouterr()
    assert "star.png  seed 7  4 steps" in told.out
    assert "star-1.png  seed 8  4 steps" in told.out
    wanted = client.pictures("sd3", PROMPT, steps=4, seed=8)[0].image
    written = np.asarray(Image.open(tmp_path / "star-1.png"))
    assert np.abs(written.astype(int) - wanted).max() <= 1


def test_a_refused_request_gives_one_sentence_and_status_1(server, tmp_path, capsys):
    options = ["--steps", "0", "--output", str(tmp_path / "none.png")]
    assert main(["generate", "sd3", PROMPT, "--url", server.grpc_url, *options]) == 1
    assert "steps: got 0; allowed are 1 to 100" in capsys.readouterr().err
    assert not (tmp_path / "none.png").exists()


def test_a_picture_is_repeated_from_its_file(server, tmp_path, capsys):
    first, again = tmp_path / "first.png", tmp_path / "again.png"
    asked = ["--steps", "3", "--num-images", "2", "--height", "48", "--negative-prompt", "é, blue"]
    url = ["--url", server.grpc_url]
    assert main(["generate", "sd3", PROMPT, *url, *asked, "--output", str(first)]) == 0
    second = tmp_path / "first-1.png"
    request = metadata.load(second)
    assert request["negative_prompt"] == "é, blue"
    assert (request["guidance_scale"], request["sampler"], request["pipeline"]) == (
        7,
        "euler",
        "sd3",
    )
    assert (request["height"], request["width"], request["num_images"]) == (48, 64, 1)
    assert main(["repeat", str(second), *url, "--output", str(again)]) == 0
    pictures = [np.asarray(Image.open(path)).astype(int) for path in (second, again)]
    difference = np.abs(pictures[0] - pictures[1]).max()
    print(f"largest difference {difference} of 255, ceiling 1")
    assert difference <= 1


def test_a_random_seed_is_recorded_and_repeated(server, client, tmp_path, capsys):
    first, again = tmp_path / "first.png", tmp_path / "again.png"
    url = ["--url", server.grpc_url]
    asked = ["--seed", "-1", "--steps", "2", "--output", str(first)]
    assert main(["generate", "sd3", PROMPT, *url, *asked]) == 0
    seed = metadata.load(first)["seed"]
    assert 0 <= seed < 2**32
    assert f"first.png  seed {seed}  2 steps" in capsys.readouterr().out
    assert main(["repeat", str(first), *url, "--output", str(again)]) == 0
    pictures = [np.asarray(Image.open(path)).astype(int) for path in (first, again)]
    difference = np.abs(pictures[0] - pictures[1]).max()
    print(f"largest difference {difference} of 255, ceiling 1")
    assert difference <= 1
    drawn = client.pictures("sd3", PROMPT, steps=1, seed=-1, num_images=2)
    assert drawn[1].seed == drawn[0].seed + 1
    assert drawn[0].seed not in (seed, -1)


def test_a_file_without_a_request_is_refused(tmp_path, capsys):
    plain, no_picture = tmp_path / "plain.png", tmp_path / "text.png"
    Image.new("RGB", (8, 8)).save(plain)
    no_picture.write_text("no picture")
    assert main(["repeat", str(plain)]) == 1
    assert "plain.png: holds no request" in capsys.readouterr().err
    assert main(["repeat", str(no_picture)]) == 1
    assert "cannot be read as a picture" in capsys.readouterr().err


# About ten seconds of work for the miniature.
LONG = {"steps": 100, "num_images": 16}


def closed(url):
    events = Client(url).generate("sd3", PROMPT, **LONG)
    next(events)
    events.close()
    return events


def timed_out(url):
    events = Client(url, timeout=1).generate("sd3", PROMPT, **LONG)
    with pytest.raises(TimedOut, match="no complete answer within 1 s"):
        list(events)
    return events


def cancelled_by_a_thread(url):
    events = Client(url).generate("sd3", PROMPT, **LONG)
    next(events)
    thread = threading.Timer(0.1, events.cancel)
    thread.start()
    with pytest.raises(Cancelled):
        list(events)
    thread.join()
    return events


def closed_async(url):
    async def run():
        async with aclosing(AsyncClient(url).generate("sd3", PROMPT, **LONG)) as events:
            await anext(events)
        return events

    return asyncio.run(run())


@pytest.mark.parametrize("leave", [closed, timed_out, cancelled_by_a_thread, closed_async])
def test_an_abandoned_request_is_cancelled_on_the_server(server, request_log, leave):
    assert logged(request_log, leave(server.grpc_url).request_id)["outcome"] == "CANCELLED"


def test_a_missed_deadline_raises_timed_out(client):
    with pytest.raises(TimedOut, match="deadline"):
        client.pictures("sd3", PROMPT, **LONG, deadline_ms=200)


def test_both_clients_get_the_same_picture(server, client):
    wanted = client.pictures("sd3", PROMPT, steps=4, seed=9)[0].image
    got = asyncio.run(AsyncClient(server.grpc_url).pictures("sd3", PROMPT, steps=4, seed=9))
    difference = np.abs(got[0].image.astype(int) - wanted).max()
    print(f"largest difference {difference} of 255, ceiling 1")
    assert difference <= 1
