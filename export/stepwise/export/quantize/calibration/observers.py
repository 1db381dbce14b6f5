"""Counts the inputs and outputs of a UNet's layers while it draws."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from stepwise.export.quantize.calibration.histogram import Histogram, count
from stepwise.export.quantize.layers import Layer, unwrapped


class Part(StrEnum):
    """A part of a layer that is counted separately, so that it can have its own range or none.

    The first token of an input that begins alike, and the layer's output for it; the channels of an
    input from the skip connection; and all the rest.
    """

    INPUT = "input"
    SKIP = "skip"
    OUTPUT = "output"
    FIRST_INPUT = "first input"
    FIRST_OUTPUT = "first output"


@dataclass(frozen=True)
class Place:
    """A part of a layer at the denoising step of ``timestep``, 0 to 999."""

    layer: str
    part: Part
    timestep: float


Recording = Mapping[Place, Histogram]


@dataclass
class Recorder:
    """Counts the inputs and outputs of layers; the code that runs the model sets ``timestep``."""

    timestep: float = 0.0
    found: dict[Place, Histogram] = field(default_factory=dict)

    def keep(self, layer: Layer, inputs: Tensor, output: Tensor) -> None:
        """Count one call of a layer."""
        for part, values in _parts(layer, inputs, output):
            place, counted = Place(layer.name, part, self.timestep), count(values)
            known = self.found.get(place)
            self.found[place] = counted if known is None else known + counted


@contextmanager
def recording(model: nn.Module, layers: Iterable[Layer]) -> Iterator[Recorder]:
    """Within the block, count all inputs and outputs of a UNet's ``layers``.

    A compiled ``model`` runs without its compiled code meanwhile.
    """
    recorder, modules = Recorder(), dict(unwrapped(model).named_modules())
    hooks = [modules[layer.name].register_forward_hook(_hook(recorder, layer)) for layer in layers]
    try:
        # Compiled code ignores hooks that were added later.
        with torch.compiler.set_stance("force_eager"):
            yield recorder
    finally:
        for hook in hooks:
            hook.remove()


def _hook(recorder: Recorder, layer: Layer) -> Any:
    def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        recorder.keep(layer, inputs[0], output)

    return hook


def _parts(layer: Layer, inputs: Tensor, output: Tensor) -> Iterator[tuple[Part, Tensor]]:
    if layer.begins_alike:
        yield Part.FIRST_INPUT, inputs[:, :1]
        yield Part.FIRST_OUTPUT, output[:, :1]
        inputs, output = inputs[:, 1:], output[:, 1:]
    if layer.split:
        yield Part.SKIP, inputs[:, layer.split :]
        inputs = inputs[:, : layer.split]
    yield Part.INPUT, inputs
    yield Part.OUTPUT, output
