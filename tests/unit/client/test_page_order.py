"""A browser receives updates in the order of their events, however long sending takes."""

import asyncio
import random
from types import SimpleNamespace

from stepwise.client import AsyncClient
from stepwise.client.page import form
from stepwise.client.page.handlers import Page
from stepwise.client.protocol import About

REQUESTS = 12
ABOUT = About({"num_images": 1, "steps": 4}, {"num_images": [1, 4], "steps": [1, 40]}, (), (), "")


def test_states_arrive_in_order(tmp_path):
    """Simulates gradio: it prepares and sends each state before it requests the next, and later
    sends the last state again without preparation."""
    browser = SimpleNamespace(session_hash="a browser")
    draws = random.Random(1)
    sent = []

    async def show(page, number):
        values = {"pipeline": "sd3", "prompt": str(number), "preset": form.NO_PRESET}
        log = None
        async for _, _, log in page.generate(browser, **values):
            await asyncio.sleep(draws.random() / 20)
            if isinstance(log, list):
                sent.append(len(log))
        await asyncio.sleep(draws.random() / 20)
        if isinstance(log, list):
            sent.append(len(log))

    async def run():
        page = Page(AsyncClient("127.0.0.1:9"), {"sd3": ABOUT}, tmp_path)
        await asyncio.gather(*(show(page, number) for number in range(REQUESTS)))

    asyncio.run(run())
    print(f"lines of the log in the order of sending: {sent}, must grow to {REQUESTS}")
    assert sent == sorted(sent)
    assert sent[-1] == REQUESTS
