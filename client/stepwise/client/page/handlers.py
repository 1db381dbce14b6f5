"""The page's event handlers: generate, cancel and leave."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from concurrent import futures
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import gradio as gr

from stepwise.client import metadata
from stepwise.client.async_client import AsyncClient
from stepwise.client.client import CANCEL_SECONDS
from stepwise.client.page import form, html
from stepwise.client.page.session import Session
from stepwise.client.protocol import About

_PREVIEW_EVERY = 2
# Limits updates of active requests, because a browser draws every update it gets.
_REDRAW_SECONDS = 0.1


class Page:
    """The page's state: one ``Session`` per browser, until it leaves or reloads the page.

    ``abouts`` are the pipelines to choose from; pictures are stored in ``folder``.
    """

    def __init__(self, client: AsyncClient, abouts: Mapping[str, About], folder: Path) -> None:
        self.abouts = abouts
        self._client = client
        self._folder = folder
        self._sessions: dict[str, Session] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def generate(self, browser: gr.Request, **values: Any) -> AsyncGenerator[list[Any], None]:
        """Make pictures or a video; yields active requests, finished pictures and the log.

        ``values`` are the form's values by name; the server chooses blank settings.
        """
        self._loop = asyncio.get_running_loop()
        name = browser.session_hash
        if name not in self._sessions:
            self._sessions[name] = Session(self._folder)
        session, told = self._sessions[name], 0.0
        about = self.abouts[values[metadata.PIPELINE]]
        events = session.draw(self._client, self._request(values, about, name), about)
        async with aclosing(events):
            async for event in events:
                finished = event is not None and event.kind == "result" and event.frames is None
                if finished or event is None or time.monotonic() - told > _REDRAW_SECONDS:
                    told = time.monotonic()
                    # gradio resumes this generator after sending, so no later state overtakes it.
                    async with session.sending:
                        pictures = list(session.pictures) if finished else gr.skip()
                        yield [html.under_way(session.drawings, session.error), pictures, gr.skip()]
        async with session.sending:
            pictures = list(session.pictures) if about.makes_videos else gr.skip()
            yield [html.under_way(session.drawings, session.error), pictures, list(session.log)]
        # gradio sends the last state again when the generator ends: this one changes nothing.
        yield [gr.skip(), gr.skip(), gr.skip()]

    def _request(self, values: Mapping[str, Any], about: About, caller: str) -> dict[str, Any]:
        """The request for the form's values."""
        # Naming the browser makes the server share its time fairly between browsers.
        own = {"prompt": "", "preview_every": _PREVIEW_EVERY, "client": caller}
        return {**own, **form.request(values, about)}

    async def cancel(self, browser: gr.Request) -> Any:
        """Cancel the browser's requests. Returns the HTML of the requests that remain active."""
        if browser.session_hash not in self._sessions:
            return gr.skip()
        session = self._sessions[browser.session_hash]
        await session.cancel()
        return html.under_way(session.drawings, session.error)

    async def leave(self, browser: gr.Request) -> None:
        """Cancel the browser's requests, drop its session and delete its uploads."""
        if browser.session_hash in self._sessions:
            gone = self._sessions.pop(browser.session_hash)
            await gone.cancel()
            # Browsers that uploaded equal files share one file.
            kept = {path for session in self._sessions.values() for path in session.uploads}
            for path in gone.uploads - kept:
                Path(path).unlink(missing_ok=True)

    def stop(self) -> None:
        """Cancel all requests, from another thread; wait at most ``CANCEL_SECONDS``."""
        if self._loop is not None:
            with suppress(futures.TimeoutError):
                asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(CANCEL_SECONDS)

    async def _stop(self) -> None:
        await asyncio.gather(*(session.cancel() for session in self._sessions.values()))
