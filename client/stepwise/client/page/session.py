"""What one browser has asked of the page: requests under way, finished pictures, the log."""

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
    """A request under way: ``latest`` is each picture's last event, ``previews`` its last image.

    ``request`` is what was asked, ``noted`` what files say of it. ``recording`` is a video's file,
    once there are frames.
    """

    events: AsyncEvents
    request: Mapping[str, Any]
    noted: Mapping[str, Any]
    began: str
    latest: dict[int, Event] = field(default_factory=dict)
    previews: dict[int, Any] = field(default_factory=dict)
    recording: Recording | None = None


class Session:
    """One browser's requests. ``pictures``, which may be videos, are (file, caption); newest first,
    as in ``log``. ``uploads`` are the files of the pictures that videos were made from. ``sending``
    is held while a state is sent to the browser, since requests share what shows it.

    The files are in a folder of the session's own, which goes when nothing refers to the session
    any more: a picture may be finished after its browser has left.
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
        """Make pictures or a video, yielding None once the request is under way, then every event.

        ``request`` has the pipeline, the prompt and the settings. However it ends, it gets its line
        of the log; an error is put there and into ``error``, not raised. Closing cancels.
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
        """Stop all that is under way; ``error`` says what the server could not be told."""
        for drawing in list(self.drawings):
            try:
                await drawing.events.cancel()
            except ClientError as error:
                self.error = str(error)

    def _take(self, drawing: Drawing, event: Event) -> None:
        if event.frames is None:
            drawing.latest[event.index] = event
        else:
            drawing.latest[0] = event  # whose index is a frame's
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
        """Show the video, if it is one, as soon as its file is whole."""
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
    """A line of the log, under ``HEADS``; times are those of the picture that was told of last."""
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
