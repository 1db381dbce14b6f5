"""Active requests as HTML. Text from users is escaped."""

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

from PIL import Image

from stepwise.client.events import Event
from stepwise.client.page.session import Drawing

CSS = """
.under-way { display: flex; flex-wrap: wrap; gap: 12px; }
.under-way figure { margin: 0; width: 128px; font-size: 12px; }
.under-way img, .under-way .blank { width: 128px; height: 128px; object-fit: contain;
    image-rendering: pixelated; background: var(--background-fill-secondary); }
.under-way progress { appearance: auto; width: 100%; accent-color: var(--color-accent); }
.under-way .error { align-self: start; color: var(--error-text-color); white-space: pre-wrap;
    border: 1px solid var(--error-border-color); border-radius: 6px; padding: 8px 12px; }
"""


def under_way(drawings: Sequence[Drawing], error: str) -> str:
    """The last error, if any, then a figure for each unfinished picture."""
    told = f'<div class="error" role="alert">{escape(error)}</div>' if error else ""
    figures = "".join(figure for drawing in drawings for figure in _figures(drawing))
    return f'<div class="under-way">{told}{figures}</div>'


def _figures(drawing: Drawing) -> list[str]:
    if not drawing.latest:
        return [_figure('<div class="blank"></div>', "waiting", "<progress></progress>")]
    if drawing.recording is not None:
        done, due = drawing.recording.frames, int(drawing.noted["frames"])
        return [_progress("frame", done, due, drawing.latest[0], drawing.previews.get(0))]
    unfinished = [event for event in drawing.latest.values() if event.kind != "result"]
    return [
        _progress("step", event.step, event.steps, event, drawing.previews.get(event.index))
        for event in unfinished
    ]


def _progress(unit: str, done: int, due: int, event: Event, preview: Any) -> str:
    image = '<div class="blank"></div>'
    if preview is not None:
        image = f'<img alt="preview" src="{_data_url(preview)}">'
    bar = f'<progress max="{due}" value="{done}"></progress>'
    return _figure(image, f"{unit} {done} of {due}<br>seed {event.seed}", bar)


def _figure(image: str, caption: str, bar: str) -> str:
    return f"<figure>{image}{bar}<figcaption>{caption}</figcaption></figure>"


def _data_url(image: Any) -> str:
    """A picture, uint8 (height, width, 3), as a data URL, so that previews need no files."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
