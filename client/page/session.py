"""What one browser has asked of the page: requests under way, finished pictures, the log."""

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from client import png, record
from client.aio import AsyncClient, AsyncEvents
from client.errors import Cancelled, ClientError
from client.events import Event

HEADS = ("time", "prompt", "settings", "queued ms", "denoising ms", "mean batch", "outcome")


@dataclass(eq=False)
class Drawing:
    """A request under way: ``latest`` is each picture's last event, ``previews`` its last image."""

    events: AsyncEvents
    request: dict[str, Any]
    began: str
    latest: dict[int, Event] = field(default_factory=dict)
    previews: dict[int, Any] = field(default_factory=dict)


class Session:
    """One browser's requests. ``pictures`` are (file, caption); newest first, as in ``log``.

    The files are in a folder of the session's own, which goes when nothing refers to the session
    any more: a picture may be finished after its browser has left.
    """

    def __init__(self, parent: Path) -> None:
        self._folder = TemporaryDirectory(dir=parent)
        self.drawings: list[Drawing] = []
        self.pictures: list[tuple[str, str]] = []
        self.log: list[list[str]] = []
        self.error = ""

    async def draw(
        self, client: AsyncClient, request: dict[str, Any], defaults: Mapping[str, Any]
    ) -> AsyncGenerator[Event | None, None]:
        """Make pictures, yielding None once the request is under way and then every event.

        ``request`` has the pipeline, the prompt and the settings. However it ends, it gets its line
        of the log; an error is put there and into ``error``, not raised. Closing cancels.
        """
        settings = {name: value for name, value in request.items() if name != record.PIPELINE}
        events = client.generate(request[record.PIPELINE], **settings)
        drawing = Drawing(events, request, time.strftime("%H:%M:%S"))
        self.drawings.append(drawing)
        self.error, outcome = "", "cancelled"
        try:
            yield None
            async with aclosing(events):
                async for event in events:
                    self._take(drawing, event, defaults)
                    yield event
            outcome = "done"
        except Cancelled:
            pass
        except ClientError as error:
            self.error = outcome = str(error)
        finally:
            self.drawings.remove(drawing)
            self.log.insert(0, _line(drawing, outcome))

    async def cancel(self) -> None:
        """Stop all that is under way; ``error`` says what the server could not be told."""
        for drawing in list(self.drawings):
            try:
                await drawing.events.cancel()
            except ClientError as error:
                self.error = str(error)

    def _take(self, drawing: Drawing, event: Event, defaults: Mapping[str, Any]) -> None:
        drawing.latest[event.index] = event
        if event.kind == "preview":
            drawing.previews[event.index] = event.image
        elif event.kind == "result":
            path = Path(self._folder.name, f"{drawing.events.request_id}-{event.index}.png")
            png.save(event, path, {**defaults, **drawing.request})
            caption = " · ".join((f"seed {event.seed}", *event.notes))
            self.pictures.insert(0, (str(path), caption))


def _line(drawing: Drawing, outcome: str) -> list[str]:
    """A line of the log, under ``HEADS``; times are those of the picture that was told of last."""
    hidden = record.OF_THE_MOMENT | {record.PIPELINE, "prompt"}
    settings = {name: value for name, value in drawing.request.items() if name not in hidden}
    times = [""] * 3
    if drawing.latest:
        *_, event = drawing.latest.values()
        settings["seed"] = event.seed - event.index
        times = [f"{event.queued_ms:.0f}", f"{event.denoising_ms:.0f}", f"{event.mean_batch:.1f}"]
    told = ", ".join(f"{name} {value}" for name, value in settings.items())
    return [drawing.began, drawing.request["prompt"], told, *times, outcome]
