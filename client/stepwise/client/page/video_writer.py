"""Writes a video file in a thread while its slices arrive over asyncio."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from stepwise.client.errors import Cancelled
from stepwise.client.events import Event
from stepwise.client.media import video


class Recording:
    """The video file at ``path``, with ``request`` stored in it. Writing starts at construction."""

    def __init__(self, path: Path, request: Mapping[str, Any]) -> None:
        self.path = path
        self.frames = 0
        self._slices: SimpleQueue[Event | Cancelled | None] = SimpleQueue()
        self._saved: Future[None] = Future()
        # A daemon, so that a stopped page does not wait for frames that never arrive.
        threading.Thread(target=self._save, args=[request], daemon=True).start()

    def put(self, event: Event) -> None:
        """Add the next slice, and set ``frames`` to the number of frames so far."""
        assert event.frames is not None
        self.frames = event.index + len(event.frames)
        self._slices.put(event)

    async def finish(self) -> None:
        """Wait until the file is complete. Raises the error if writing failed."""
        self._slices.put(None)
        await asyncio.wrap_future(self._saved)

    async def drop(self) -> None:
        """Leave no file, unless it is complete already."""
        self._slices.put(Cancelled("the video was not finished"))
        with suppress(Exception):
            await asyncio.wrap_future(self._saved)

    def _save(self, request: Mapping[str, Any]) -> None:
        try:
            video.save(self._arriving(), self.path, request)
        except Exception as error:
            self._saved.set_exception(error)
        else:
            self._saved.set_result(None)

    def _arriving(self) -> Iterator[Event]:
        while (event := self._slices.get()) is not None:
            if isinstance(event, Cancelled):
                raise event
            yield event
