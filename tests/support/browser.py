"""The page in a browser: tests open it, fill in its form and read its log."""

import os
import socket
import subprocess
from contextlib import contextmanager
from urllib.parse import urlsplit

from playwright.sync_api import expect, sync_playwright

from tests.support.paths import STEPWISE

MILLISECONDS = 30_000
expect.set_options(timeout=MILLISECONDS)
BROWSER = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
WIDTH = 1280


@contextmanager
def serving_page(server, folder, *options):
    """The page's process and address; its temporary files go to ``folder``."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [STEPWISE, "page", "--url", server.grpc_url]
    command += ["--port", port, *options]
    environment = {**os.environ, "TMPDIR": str(folder)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        try:
            assert process.stdout.readline().startswith("the page is at http://127.0.0.1:")
            yield process, f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()


@contextmanager
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=list(BROWSER)
        )
        yield browser
        browser.close()


@contextmanager
def opening(browser, page):
    """Opens the page in a new browser context; requests to other machines fail the test."""
    asked, contexts = [], []

    def opened(url=page):
        context = browser.new_context(viewport={"width": WIDTH, "height": 800})
        context.set_default_timeout(MILLISECONDS)
        context.on("request", lambda request: asked.append(request.url))
        contexts.append(context)
        tab = context.new_page()
        tab.goto(url)
        return tab

    yield opened
    for context in contexts:
        context.close()
    hosts = {urlsplit(url).hostname for url in asked if not url.startswith(("data:", "blob:"))}
    print(f"{len(asked)} requests to {hosts}")
    assert hosts == {"127.0.0.1"}


def fill(tab, **values):
    """Fill in the form by label; fields missing from ``values`` stay unchanged."""
    for label, value in values.items():
        if label in ("Pipeline", "Preset", "Words", "Sampler", "Size"):
            tab.get_by_label(label).click()
            tab.get_by_role("option", name=value, exact=True).click()
        elif label in ("Steps", "Guidance", "Pictures", "Frames"):
            tab.get_by_label(f"number input for {label}", exact=True).fill(str(value))
        else:
            tab.get_by_label(label, exact=True).fill(value)


def generate(tab, **values):
    fill(tab, **values)
    tab.get_by_role("button", name="Generate").click()


def cell(tab, row, column):
    """A cell of the log; the newest request is in row 0."""
    return tab.get_by_test_id(f"cell-{row}-{column}")


def ends(tab, outcome, row=0):
    expect(cell(tab, row, 6)).to_have_text(outcome, timeout=MILLISECONDS)


def thumbnails(tab):
    return tab.get_by_label("Thumbnail")
