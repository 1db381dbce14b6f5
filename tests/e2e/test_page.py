"""The page in a real browser with a real server. One test makes the README's screenshot."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from stepwise.client import About, AsyncClient, metadata, presets
from tests.e2e.test_serving import until
from tests.support.browser import (
    WIDTH,
    cell,
    chromium,
    ends,
    fill,
    generate,
    opening,
    serving_page,
    thumbnails,
)

PROMPT = "a large red star in the top left on a white background"
# About ten seconds of work for the miniature.
LONG = {"Steps": 100, "Pictures": 16}
README_PROMPTS = (
    "a large green triangle in the bottom right on a gray background",
    "a small blue circle in the center on a black background",
    PROMPT,
)


@pytest.fixture(scope="module")
def page(server, tmp_path_factory):
    with serving_page(server, tmp_path_factory.mktemp("page")) as (_, url):
        yield url


@pytest.fixture(scope="module")
def browser():
    with chromium() as launched:
        yield launched


@pytest.fixture
def open_page(browser, page):
    with opening(browser, page) as opened:
        yield opened


def asked_for(request_log, prompt):
    """The lines of the request log for this prompt."""
    lines = [json.loads(line) for line in request_log.read_text().splitlines()]
    return [line for line in lines if line["asked"].get("prompt") == prompt]


def test_a_picture_matches_the_clients_and_its_file_holds_the_request(client, open_page, tmp_path):
    tab = open_page()
    settings = {"steps": 12, "guidance_scale": 1.5, "sampler": "dpmpp_2m", "seed": 7}
    generate(tab, Prompt=PROMPT, Sampler="dpmpp_2m", Steps=12, Guidance=1.5, Seed="7")
    ends(tab, "done")
    thumbnails(tab).click()
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Download").click()
    download.value.save_as(tmp_path / "star.png")
    wanted = client.pictures("sd3", PROMPT, **settings)[0].image
    difference = np.abs(np.asarray(Image.open(tmp_path / "star.png")).astype(int) - wanted).max()
    print(f"largest difference {difference} of 255, ceiling 1")
    assert difference <= 1
    request = metadata.load(tmp_path / "star.png")
    assert request["pipeline"] == "sd3"
    assert {name: request[name] for name in settings} == settings


def test_the_log_shows_settings_and_timings(open_page, request_log):
    tab = open_page()
    prompt = f"{PROMPT} <b>logged</b>"
    generate(tab, Prompt=prompt, Steps=4, Pictures=2)
    ends(tab, "done")
    expect(thumbnails(tab)).to_have_count(2)
    asked = asked_for(request_log, prompt)
    assert len(asked) == 1
    expect(cell(tab, 0, 1)).to_have_text(prompt)
    expect(cell(tab, 0, 2)).to_contain_text(f"seed {asked[0]['seed']}")
    told = [float(cell(tab, 0, column).inner_text()) for column in (3, 4, 5)]
    logged = [asked[0][name] for name in ("queued_ms", "denoising_ms", "mean_batch")]
    print(f"queued, denoising, batch: {told}, in the server's log {logged}")
    assert told == pytest.approx(logged, abs=1)


def test_previews_appear_and_cancel_stops_the_request_on_the_server(open_page, request_log):
    tab = open_page()
    prompt = f"{PROMPT} cancelled"
    generate(tab, Prompt=prompt, **LONG)
    expect(tab.get_by_alt_text("preview").first).to_be_visible()
    expect(tab.get_by_text("of 100").first).to_be_visible()
    tab.get_by_role("button", name="Cancel").click()
    ends(tab, "cancelled")
    expect(tab.get_by_alt_text("preview")).to_have_count(0)
    assert [line["outcome"] for line in asked_for(request_log, prompt)] == ["CANCELLED"]


@pytest.mark.parametrize(
    ("label", "value", "sentence"),
    [
        ("Height", "50", "height: got 50; allowed are multiples of 16 from 32 to 96"),
        ("Seed", "<b>7</b>${1}", "seed: got '<b>7</b>${1}'; a number of type INT64 is needed"),
    ],
)
def test_a_bad_value_shows_the_error_of_the_server(open_page, label, value, sentence):
    tab = open_page()
    generate(tab, Prompt=PROMPT, **{label: value})
    expect(tab.get_by_role("alert")).to_contain_text(sentence)
    expect(cell(tab, 0, 6)).to_contain_text(sentence)
    generate(tab, **{label: ""}, Steps=2)
    ends(tab, "done")
    expect(tab.get_by_role("alert")).to_have_count(0)
    expect(cell(tab, 1, 6)).to_contain_text(sentence)


def test_browsers_and_requests_run_concurrently(open_page, request_log):
    prompts = [f"{PROMPT} {who}" for who in ("first", "second")]
    tabs = [open_page() for _ in prompts]
    for tab, prompt in zip(tabs, prompts, strict=True):
        generate(tab, Prompt=prompt, Steps=60, Pictures=1)
        tab.get_by_role("button", name="Generate").click()
    for tab in tabs:
        ends(tab, "done", row=1)
        expect(thumbnails(tab)).to_have_count(2)
    batches = [line["mean_batch"] for prompt in prompts for line in asked_for(request_log, prompt)]
    print(f"mean batches {batches}, floor 1 for the largest")
    assert max(batches) > 1


def test_a_closed_tab_cancels(open_page, request_log):
    tab = open_page()
    prompt = f"{PROMPT} closed"
    generate(tab, Prompt=prompt, **LONG)
    expect(tab.get_by_alt_text("preview").first).to_be_visible()
    tab.close()
    until(lambda: asked_for(request_log, prompt))
    assert [line["outcome"] for line in asked_for(request_log, prompt)] == ["CANCELLED"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_page_cancels_and_leaves_no_file(
    server, open_page, request_log, tmp_path, number
):
    prompt = f"{PROMPT} stopped by {number}"
    with serving_page(server, tmp_path) as (process, url):
        tab = open_page(url)
        generate(tab, Prompt=PROMPT, Steps=2)
        ends(tab, "done")
        assert len(list(tmp_path.rglob("*.png"))) == 1
        generate(tab, Prompt=prompt, **LONG)
        expect(tab.get_by_alt_text("preview").first).to_be_visible()
        process.send_signal(number)
        assert process.wait(30) == 0
    until(lambda: asked_for(request_log, prompt))
    assert [line["outcome"] for line in asked_for(request_log, prompt)] == ["CANCELLED"]
    assert list(tmp_path.iterdir()) == []


SETTINGS = (
    *("prompt", "negative_prompt", "sampler", "num_images", "steps", "guidance_scale", "seed"),
    *("preview_every", "client"),
)


@pytest.fixture
def two_pipelines(tmp_path, monkeypatch):
    """The address of a page with two pipelines and no server."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    from stepwise.client.page import layout
    from stepwise.client.page.handlers import Page

    karras = "dpmpp_2m_karras"
    abouts = {
        name: About(
            {"num_images": 1, "steps": steps, "guidance_scale": 1.0, "sampler": samplers[0]},
            {"num_images": [1, 4], "steps": [1, 10 * steps], "guidance_scale": [0, 30]},
            samplers,
            (*SETTINGS, *sizes),
            family,
        )
        for name, family, steps, samplers, sizes in (
            ("sd3", "sd3", 28, ("euler", "heun"), ("height", "width")),
            ("fast", "sdxl", 4, ("lcm", "ddim", karras), ("height", "width", "bucket")),
        )
    }
    blocks = layout.blocks(Page(AsyncClient("127.0.0.1:9"), abouts, tmp_path))
    yield blocks.launch(prevent_thread_lock=True, quiet=True)[1]
    blocks.close(verbose=False)


def test_a_pipeline_shows_its_samplers_and_ranges(open_page, two_pipelines):
    tab = open_page(two_pipelines)
    fill(tab, Sampler="heun", Pipeline="fast")
    expect(tab.get_by_label("number input for Steps")).to_have_value("4")
    expect(tab.get_by_label("Sampler")).to_have_value("lcm")
    fill(tab, Sampler="ddim", Steps=50)
    generate(tab, Prompt=PROMPT)
    expect(tab.get_by_role("alert")).to_contain_text("is the server running (stepwise serve)?")
    expect(cell(tab, 0, 2)).to_contain_text("sampler ddim, num_images 1, steps 40")


def test_a_preset_fills_the_form_and_none_clears_it(open_page, two_pipelines):
    advice = presets.load("helloworld-xl")
    tab = open_page(two_pipelines)
    expect(tab.get_by_label("Words")).to_have_count(0)
    fill(tab, Pipeline="fast")
    expect(tab.get_by_label("number input for Steps")).to_have_value("4")
    fill(tab, Pictures=2, Preset="helloworld-xl")
    for label, name in (("Sampler", "sampler"), ("Negative prompt", "negative_prompt")):
        expect(tab.get_by_label(label)).to_have_value(advice.settings[name])
    expect(tab.get_by_label("number input for Steps")).to_have_value("30")
    expect(tab.get_by_label("number input for Guidance", exact=True)).to_have_value("5")
    expect(tab.get_by_label("number input for Pictures")).to_have_value("2")
    expect(tab.get_by_text(advice.structure)).to_be_visible()
    prompt = tab.get_by_label("Prompt", exact=True)
    fill(tab, Steps=20, Prompt="a lighthouse,", Words="colour: earthy tones")
    expect(prompt).to_have_value("a lighthouse, earthy tones")
    for label in ("Preset", "Words"):  # focused but not changed
        tab.get_by_label(label).click()
        tab.get_by_label(label).press("Tab")
    fill(tab, Size=advice.sizes[0], Words="quality: masterpiece")
    expect(prompt).to_have_value("a lighthouse, earthy tones, masterpiece")
    generate(tab)
    expect(cell(tab, 0, 1)).to_have_text("a lighthouse, earthy tones, masterpiece")
    expect(cell(tab, 0, 2)).to_contain_text(f"negative_prompt {advice.settings['negative_prompt']}")
    expect(cell(tab, 0, 2)).to_contain_text("steps 20, guidance_scale 5, bucket 832x1248")
    fill(tab, Preset="none")
    expect(tab.get_by_label("Negative prompt")).to_have_value("")
    expect(tab.get_by_label("number input for Steps")).to_have_value("4")
    expect(tab.get_by_label("Words")).to_have_count(0)
    generate(tab)
    expect(cell(tab, 0, 2)).not_to_contain_text("negative_prompt")
    expect(cell(tab, 0, 2)).not_to_contain_text("bucket")


def test_a_pipeline_with_buckets_has_a_size_and_others_have_sides(open_page, two_pipelines):
    tab = open_page(two_pipelines)
    expect(tab.get_by_label("Size")).to_have_count(0)
    fill(tab, Height="64")
    fill(tab, Pipeline="fast")
    expect(tab.get_by_label("Height")).to_have_count(0)
    fill(tab, Size="16:9")
    generate(tab, Prompt=PROMPT)
    expect(cell(tab, 0, 2)).to_contain_text("bucket 16:9")
    expect(cell(tab, 0, 2)).not_to_contain_text("height")
    tab.get_by_label("Size").fill("700x700")
    tab.get_by_label("Size").press("Enter")
    tab.get_by_role("button", name="Generate").click()
    expect(cell(tab, 0, 2)).to_contain_text("bucket 700x700")


def test_the_screenshot_of_the_readme(open_page, tmp_path):
    tab = open_page()
    fill(tab, Sampler="dpmpp_2m", Steps=20, Guidance=1.5, Pictures=4)
    for seed, prompt in enumerate(README_PROMPTS, 1):
        generate(tab, Prompt=prompt, Seed=str(seed))
        expect(thumbnails(tab)).to_have_count(4 * seed)
        ends(tab, "done", row=seed - 1)
    path = Path(os.environ.get("SCREENSHOT", tmp_path / "page.png"))
    tab.screenshot(path=path, full_page=True)
    with Image.open(path) as shot:
        assert shot.width == WIDTH
    print(f"{path.stat().st_size} bytes, ceiling 300,000")
    assert path.stat().st_size <= 300_000


MAIN = "from stepwise.client.cli.main import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("", "error: port {port} is taken or not allowed; give another --port\n"),
        (
            "sys.modules['gradio'] = None",
            "error: stepwise page needs gradio: pip install 'stepwise-client[page]'\n",
        ),
    ],
)
def test_a_page_that_cannot_start_prints_one_sentence(server, page, before, said):
    port = str(urlsplit(page).port)
    code = f"import sys; {before}\n{MAIN}"
    command = [sys.executable, "-c", code, "page", "--url", server.grpc_url, "--port", port]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, said.format(port=port))
