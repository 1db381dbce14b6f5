"""Encodes the prompts of a request over whatever runs the text encoders."""

from collections.abc import Callable, Mapping
from typing import Any

from stepwise.description.family import Family
from stepwise.description.fields import Array
from stepwise.description.settings import Settings
from stepwise.description.spec import Component, prompt_tensor

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
    """One text encoder's embeddings of one prompt, by ``prompt_tensor``.

    ``prepared`` holds the inputs of all encoders by ``prompt_tensor``.
    """
    return embeddings(encoder, role, run(feed(encoder, role, prepared)))


def feed(encoder: Component, role: str, prepared: Mapping[str, Array]) -> dict[str, Array]:
    """One text encoder's inputs for one prompt, by their names in its graph."""
    return {
        tensor.name: prepared[prompt_tensor(role, encoder, tensor)] for tensor in encoder.inputs
    }


def embeddings(encoder: Component, role: str, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """One text encoder's outputs for one prompt, by ``prompt_tensor``."""
    return {
        prompt_tensor(role, encoder, tensor): outputs[tensor.name] for tensor in encoder.outputs
    }


def encode_prompts(
    family: Family, prepared: Mapping[str, Array], settings: Settings, run: RunComponent
) -> dict[str, Array]:
    """The embeddings of the prompts that ``settings`` uses, by ``prompt_tensor``."""
    encoded: dict[str, Array] = {}
    for role in family.encoded_roles(settings):
        for encoder in family.encoders:
            encoded |= encode_prompt(encoder, role, prepared, bound(run, encoder))
    return encoded
