"""Videos on the page: previews, playback, the downloaded file, and input images."""

import http.client
import signal

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from stepwise.client import metadata
from stepwise.client.cli.main import main
from tests.e2e.test_serving import until
from tests.support.browser import (
    MILLISECONDS,
    cell,
    chromium,
    ends,
    fill,
    generate,
    opening,
    serving_page,
    thumbnails,
)
from tests.support.scenes import scene
from tests.support.servers import assert_freed
from tests.unit.client.test_video import FLOORS, decoded, psnr

PROMPT = "a red star that moves to the right"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def page(server, folder):
    with serving_page(server, folder, "--pipeline", "film", "mock") as (_, url):
        yield url


@pytest.fixture(scope="module")
def browser():
    with chromium() as launched:
        yield launched


@pytest.fixture
def open_page(browser, page):
    with opening(browser, page) as opened:
        yield opened


def video(tab):
    """The video of the page at playable size."""
    thumbnails(tab).first.click()
    return tab.locator("video").last


def test_a_video_plays_on_the_page_and_its_file_is_an_mp4(server, open_page, tmp_path):
    tab = open_page()
    expect(tab.get_by_label("number input for Frames")).to_have_value("49")
    expect(tab.get_by_label("number input for Pictures")).to_have_count(0)
    generate(tab, Prompt=PROMPT, Frames=13, Seed="7")
    ends(tab, "done")
    playing = video(tab)
    expect(playing).to_be_visible()
    playing.evaluate("video => { video.muted = true; return video.play() }")
    tab.wait_for_function("[...document.querySelectorAll('video')].some(v => v.currentTime > 0.2)")
    size = playing.evaluate("video => [video.videoWidth, video.videoHeight, video.duration]")
    print(f"width, height, seconds in the browser: {size}")
    assert size == pytest.approx([64, 48, 13 / 8], abs=0.01)
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename.endswith(".mp4")
    path = tmp_path / "video.mp4"
    download.value.save_as(path)
    closeness = psnr(decoded(path), scene(13, 48, 64, 7))
    print(f"{closeness:.1f} dB, floor {FLOORS['.mp4']}")
    assert closeness >= FLOORS[".mp4"]
    assert (metadata.load(path)["prompt"], metadata.load(path)["fps"]) == (PROMPT, 8)
    again = tmp_path / "again.mp4"
    assert main(["repeat", str(path), "--url", server.grpc_url, "--output", str(again)]) == 0
    assert np.array_equal(decoded(again), decoded(path))


def test_previews_and_frames_are_shown_until_the_video_is_complete(open_page):
    tab = open_page()
    generate(tab, Prompt="slow", Frames=61, Steps=15)
    expect(tab.get_by_alt_text("preview")).to_be_visible()
    expect(tab.get_by_text("of 15")).to_be_visible()
    expect(tab.get_by_text("of 61")).to_be_visible(timeout=MILLISECONDS)
    expect(tab.get_by_alt_text("preview")).to_be_visible()
    ends(tab, "done")
    expect(tab.get_by_alt_text("preview")).to_have_count(0)
    expect(thumbnails(tab)).to_have_count(1)


def test_a_video_cancelled_midway_leaves_no_file(server, open_page, folder):
    tab = open_page()
    before = set(folder.rglob("*.mp4"))
    generate(tab, Prompt="stalls", Frames=145)
    expect(tab.get_by_text("of 145")).to_be_visible()
    tab.get_by_role("button", name="Cancel").click()
    ends(tab, "cancelled")
    assert_freed(server)
    assert set(folder.rglob("*.mp4")) == before
    assert not list(folder.rglob("*.part"))
    expect(thumbnails(tab)).to_have_count(0)


def test_a_page_stopped_while_writing_a_video_leaves_no_file(server, open_page, tmp_path):
    with serving_page(server, tmp_path, "--pipeline", "film") as (process, url):
        tab = open_page(url)
        generate(tab, Prompt="stalls", Frames=145)
        expect(tab.get_by_text("of 145")).to_be_visible()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert_freed(server)
    assert list(tmp_path.iterdir()) == []


def test_a_pipeline_shows_its_fields_and_hidden_fields_are_not_sent(open_page):
    tab = open_page()
    fill(tab, Frames=5, Pipeline="mock")
    expect(tab.get_by_label("number input for Frames")).to_have_count(0)
    expect(tab.get_by_text("Start image")).to_have_count(0)
    expect(tab.get_by_label("number input for Pictures")).to_have_value("1")
    generate(tab, Prompt=PROMPT, Pictures=2)
    ends(tab, "done")
    expect(thumbnails(tab)).to_have_count(2)
    expect(cell(tab, 0, 2)).to_contain_text("num_images 2")
    expect(cell(tab, 0, 2)).not_to_contain_text("frames")
    fill(tab, Pipeline="film")
    expect(tab.get_by_text("Start image")).to_be_visible()
    generate(tab, Frames=9)
    ends(tab, "done")
    expect(thumbnails(tab)).to_have_count(3)
    expect(cell(tab, 0, 2)).to_contain_text("frames 9")
    expect(cell(tab, 0, 2)).not_to_contain_text("num_images")


def upload(tab, label, path):
    block = tab.locator(".block", has_text=label)
    block.locator("input[type=file]").set_input_files(path)
    expect(block.locator("img")).to_be_visible()


def test_a_video_starts_and_ends_with_uploaded_pictures(open_page, folder, tmp_path):
    start, end = scene(2, 40, 56, 3)
    for name, picture in (("first", start), ("last", end)):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    tab = open_page()
    upload(tab, "Start image", tmp_path / "first.png")
    upload(tab, "End image", tmp_path / "last.png")
    generate(tab, Prompt=PROMPT, Frames=5)
    ends(tab, "done")
    expect(cell(tab, 0, 2)).to_contain_text("start_image first.png, end_image last.png")
    written = max(folder.rglob("*.mp4"), key=lambda path: path.stat().st_mtime)
    frames = decoded(written)
    closeness = [psnr(frames[0], start), psnr(frames[-1], end)]
    print(f"{closeness} dB, floor {FLOORS['.mp4']}")
    assert min(closeness) >= FLOORS[".mp4"]
    assert list(folder.rglob("first.png"))
    tab.close()
    until(lambda: not list(folder.rglob("first.png")) and not written.exists())


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Host": "localhost:{port}"}, True),
        ({"Host": "127.0.0.1:9", "Origin": "http://127.0.0.1:9"}, True),
        ({"Origin": "http://127.0.0.1:{port}"}, True),
        ({"Host": "example.com"}, False),
        ({"Host": "127.0.0.1.example.com:{port}"}, False),
        ({"Host": ""}, False),
        ({"Origin": "https://example.com"}, False),
        ({"Origin": "http://localhost:{port}"}, False),
        ({"Origin": "null"}, False),
    ],
)
@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/info", "/gradio_api/upload"])
def test_other_sites_cannot_use_the_page(page, path, headers, allowed):
    port = page.rpartition(":")[2].strip("/")
    given = {name: value.format(port=port) for name, value in headers.items()}
    method = "POST" if path.endswith("upload") else "GET"
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
    connection.request(method, path, headers=given)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert (answer.status != 403) == allowed, text
    if not allowed:
        assert "allowed" in text
