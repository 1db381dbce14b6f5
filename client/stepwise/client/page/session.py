"""One browser's state: active requests, finished pictures, the log."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stepwise.client import input_images, metadata
from stepwise.client.async_client import AsyncClient, AsyncEvents
from stepwise.client.errors import Cancelled, ClientError, InvalidRequest
from stepwise.client.events import Event
from stepwise.client.media import png
from stepwise.client.page import form
from stepwise.client.page.video_writer import Recording
from stepwise.client.protocol import About

HEADS = ("time", "prompt", "settings", "queued ms", "denoising ms", "mean batch", "outcome")


@dataclass(eq=False)
class Drawing:
    """An active request: ``latest`` is each picture's last event, ``previews`` its last image.

    ``request`` is the form's request, ``noted`` the version stored in files. ``recording`` is the
    video's file, once frames have arrived.
    """

    events: AsyncEvents
    request: Mapping[str, Any]
    noted: Mapping[str, Any]
    began: str
    latest: dict[int, Event] = field(default_factory=dict)
    previews: dict[int, Any] = field(default_factory=dict)
    recording: Recording | None = None


class Session:
    """One browser's requests.

    ``pictures`` are (file, caption) of pictures and videos; they and ``log`` are newest first.
    ``uploads`` are the input pictures of videos. ``sending`` is locked while a state is sent to the
    browser, because all requests update the same components.

    The session has its own folder, deleted when the session is garbage-collected and not when the
    browser leaves: a picture may be finished later.
    """

    def __init__(self, parent: Path) -> None:
        self._folder = TemporaryDirectory(dir=parent)
        self.drawings: list[Drawing] = []
        self.pictures: list[tuple[str, str]] = []
        self.uploads: set[str] = set()
        self.log: list[list[str]] = []
        self.error = ""
        self.sending = asyncio.Lock()

    async def draw(
        self, client: AsyncClient, request: dict[str, Any], about: About
    ) -> AsyncGenerator[Event | None, None]:
        """Make pictures or a video; yields None once the request is active, then every event.

        ``request`` has the pipeline, the prompt and the settings. Every request gets a line in the
        log; a ClientError goes there and into ``error`` and is not raised. Closing cancels.
        """
        self.uploads.update(request[name] for name in about.images if name in request)
        self.error, began = "", time.strftime("%H:%M:%S")
        try:
            sent, noted = input_images.taken(request, about.images)
        except InvalidRequest as error:
            self.error = str(error)
            self.log.insert(0, _line(began, request, {}, self.error))
            return
        events = client.generate(sent.pop(metadata.PIPELINE), **sent)
        drawing = Drawing(events, request, {**about.defaults, **noted}, began)
        self.drawings.append(drawing)
        outcome = "cancelled"
        try:
            yield None
            async with aclosing(events):
                async for event in events:
                    self._take(drawing, event)
                    yield event
            await self._finish(drawing)
            outcome = "done"
        except Cancelled:
            pass
        except ClientError as error:
            self.error = outcome = str(error)
        finally:
            self.drawings.remove(drawing)
            self.log.insert(0, _line(began, request, drawing.latest, outcome))
            if drawing.recording is not None:
                await drawing.recording.drop()

    async def cancel(self) -> None:
        """Cancel all active requests; a failure to reach the server goes into ``error``."""
        for drawing in list(self.drawings):
            try:
                await drawing.events.cancel()
            except ClientError as error:
                self.error = str(error)

    def _take(self, drawing: Drawing, event: Event) -> None:
        if event.frames is None:
            drawing.latest[event.index] = event
        else:
            drawing.latest[0] = event  # a slice's index is a frame
        if event.kind == "preview":
            drawing.previews[event.index] = event.shown
        elif event.kind == "result" and event.frames is not None:
            if drawing.recording is None:
                path = self._path(drawing, ".mp4")
                drawing.recording = Recording(path, drawing.noted)
            drawing.recording.put(event)
        elif event.kind == "result":
            path = self._path(drawing, f"-{event.index}.png")
            png.save(event, path, drawing.noted)
            self._show(path, event)

    async def _finish(self, drawing: Drawing) -> None:
        """Show a video as soon as its file is complete."""
        if drawing.recording is not None:
            await drawing.recording.finish()
            self._show(drawing.recording.path, drawing.latest[0])

    def _path(self, drawing: Drawing, ending: str) -> Path:
        return Path(self._folder.name, f"{drawing.events.request_id}{ending}")

    def _show(self, path: Path, event: Event) -> None:
        self.pictures.insert(0, (str(path), " · ".join((f"seed {event.seed}", *event.notes))))


def _line(
    began: str, request: Mapping[str, Any], latest: Mapping[int, Event], outcome: str
) -> list[str]:
    """A line of the log, with columns ``HEADS``; times are those of the latest event."""
    hidden = metadata.OF_THE_MOMENT | {metadata.PIPELINE, "prompt"}
    settings = {name: value for name, value in request.items() if name not in hidden}
    for name in form.IMAGES & settings.keys():
        settings[name] = Path(settings[name]).name
    times = [""] * 3
    if latest:
        *_, event = latest.values()
        settings["seed"] = event.asked_seed
        times = [f"{event.queued_ms:.0f}", f"{event.denoising_ms:.0f}", f"{event.mean_batch:.1f}"]
    told = ", ".join(f"{name} {value}" for name, value in settings.items())
    return [began, request["prompt"], told, *times, outcome]
