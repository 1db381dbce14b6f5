"""Encodes the prompts of a request over whatever runs the text encoders."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from stepwise.description.family import Family
from stepwise.description.fields import Array
from stepwise.description.settings import Settings
from stepwise.description.spec import Component, ensemble_name

# Maps a component's inputs by name to its outputs by name.
Run = Callable[[Mapping[str, Any]], Mapping[str, Any]]
# Runs any component of a pipeline.
RunComponent = Callable[[Component, Mapping[str, Any]], Mapping[str, Any]]


def bound(run: RunComponent, component: Component) -> Run:
    """Bind ``run`` to one component."""
    return lambda feed: run(component, feed)


def encode_prompt(
    encoder: Component, role: str, prepared: Mapping[str, Array], run: Run
) -> dict[str, Array]:
    """One text encoder's embeddings of one prompt, by ``ensemble_name``.

    ``prepared`` holds the inputs of all encoders by ``ensemble_name``.
    """
    return embeddings(encoder, role, run(feed(encoder, role, prepared)))


def feed(encoder: Component, role: str, prepared: Mapping[str, Array]) -> dict[str, Array]:
    """One text encoder's inputs for one prompt, by their names in its graph."""
    return {
        tensor.name: prepared[ensemble_name(role, encoder, tensor)] for tensor in encoder.inputs
    }


def embeddings(encoder: Component, role: str, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """One text encoder's outputs for one prompt, by ``ensemble_name``."""
    return {
        ensemble_name(role, encoder, tensor): outputs[tensor.name] for tensor in encoder.outputs
    }


def encode_prompts(
    family: Family, prepared: Mapping[str, Array], settings: Settings, run: RunComponent
) -> dict[str, Array]:
    """The embeddings of the prompts that ``settings`` uses, by ``ensemble_name``."""
    encoded: dict[str, Array] = {}
    for role in family.encoded_roles(settings):
        for encoder in family.encoders:
            encoded |= encode_prompt(encoder, role, prepared, bound(run, encoder))
    return encoded


def unused_embeddings(family: Family, settings: Settings) -> Iterator[tuple[str, Array]]:
    """Empty tensors in the place of embeddings that ``settings`` does not use.

    A model of an ensemble has to send all of its outputs.
    """
    used = family.encoded_roles(settings)
    for role, encoder in family.encodings():
        for output in encoder.outputs if role not in used else ():
            shape = (1, *[0] * (len(output.dims) - 1))
            yield ensemble_name(role, encoder, output), np.zeros(shape, np.float32)
