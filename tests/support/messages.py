"""Well-formed messages to every model of a pipeline, its graphs included."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stepwise.description.fields import Array
from stepwise.description.spec import Component
from stepwise.local import LocalPipeline

PROMPT = "a large red star in the top left on a white background"


@dataclass(frozen=True)
class Message:
    """Tensors that the model ``model`` accepts."""

    model: str
    tensors: dict[str, Any] = field(default_factory=dict)


class _Recorder(LocalPipeline):
    """Keeps the last inputs of each graph."""

    def __init__(self, repository: Path, name: str) -> None:
        super().__init__(repository, name)
        self.feeds: dict[str, Mapping[str, Array]] = {}

    def run(self, component: Component, feed: Mapping[str, Array]) -> Mapping[str, Array]:
        self.feeds[component.name] = feed
        return super().run(component, feed)


def messages(repository: Path, name: str) -> list[Message]:
    """One message to each model of the pipeline ``name``."""
    pipeline = _Recorder(repository, name)
    asked: dict[str, Any] = {"prompt": PROMPT, "steps": 2}
    if pipeline.family.makes_videos:
        asked["frames"] = 5
    if pipeline.family.image_encoder is not None:
        asked["start_image"] = np.full((64, 64, 3), 200, np.uint8)
    settings = {key: value for key, value in asked.items() if key != "prompt"}
    pipeline.generate(PROMPT, **settings)
    feeds = pipeline.feeds.items()
    graphs = [Message(f"{name}_{component}", dict(feed)) for component, feed in feeds]
    assert len(graphs) == len(pipeline.family.components)
    return [Message(name, asked), *graphs]
