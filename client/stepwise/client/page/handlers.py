"""What the page does when somebody presses a button or leaves."""

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
# Of what is under way: a browser has to draw whatever it is told.
_REDRAW_SECONDS = 0.1


class Page:
    """The page of all browsers, each with a ``Session`` until it leaves or loads the page anew.

    ``abouts`` are the pipelines to choose from; pictures are kept in ``folder``.
    """

    def __init__(self, client: AsyncClient, abouts: Mapping[str, About], folder: Path) -> None:
        self.abouts = abouts
        self._client = client
        self._folder = folder
        self._sessions: dict[str, Session] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def generate(self, browser: gr.Request, **values: Any) -> AsyncGenerator[list[Any], None]:
        """Make pictures or a video; yields what is under way, finished pictures and the log.

        ``values`` are what the form says, by name; blank settings are left to the server.
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
                    # gradio goes on once it has sent this, so no later state can overtake it.
                    async with session.sending:
                        pictures = list(session.pictures) if finished else gr.skip()
                        yield [html.under_way(session.drawings, session.error), pictures, gr.skip()]
        async with session.sending:
            pictures = list(session.pictures) if about.makes_videos else gr.skip()
            yield [html.under_way(session.drawings, session.error), pictures, list(session.log)]
        # gradio sends the last state once more when the generator ends: this one changes nothing.
        yield [gr.skip(), gr.skip(), gr.skip()]

    def _request(self, values: Mapping[str, Any], about: About, caller: str) -> dict[str, Any]:
        """The request that the form stands for."""
        # The caller's name makes the server share its time fairly between browsers.
        own = {"prompt": "", "preview_every": _PREVIEW_EVERY, "client": caller}
        return {**own, **form.request(values, about)}

    async def cancel(self, browser: gr.Request) -> Any:
        """Stop what the browser has asked for; what is under way then."""
        if browser.session_hash not in self._sessions:
            return gr.skip()
        session = self._sessions[browser.session_hash]
        await session.cancel()
        return html.under_way(session.drawings, session.error)

    async def leave(self, browser: gr.Request) -> None:
        """Stop what the browser has asked for, forget it, and delete what it has uploaded."""
        if browser.session_hash in self._sessions:
            gone = self._sessions.pop(browser.session_hash)
            await gone.cancel()
            # Equal files of several browsers are one.
            kept = {path for session in self._sessions.values() for path in session.uploads}
            for path in gone.uploads - kept:
                Path(path).unlink(missing_ok=True)

    def stop(self) -> None:
        """Stop everything, from another thread, as far as a server can be told in time."""
        if self._loop is not None:
            with suppress(futures.TimeoutError):
                asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(CANCEL_SECONDS)

    async def _stop(self) -> None:
        await asyncio.gather(*(session.cancel() for session in self._sessions.values()))
