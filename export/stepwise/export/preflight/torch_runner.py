"""Runs components of a checkpoint with torch, one in memory at a time."""

import gc
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from stepwise.description.spec import Component
from stepwise.export.checkpoint.folder import Checkpoint
from stepwise.export.errors import CheckpointError, reason
from stepwise.export.loading.loader import load
from stepwise.export.modules.exportable import Exportable
from stepwise.export.onnx.ort import Array, Feed
from stepwise.video.sliced_vae import Run


class Runner:
    """Runs components, one in memory at a time, and records their inputs."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """No component is loaded yet."""
        self.checkpoint = checkpoint
        self.feeds: defaultdict[str, list[Feed]] = defaultdict(list)

    @contextmanager
    def loaded(self, component: Component) -> Iterator[Exportable]:
        """Keep a component in memory during the block; CheckpointError as in ``load``."""
        module = load(self.checkpoint, component)
        try:
            yield module
        finally:
            del module
            gc.collect()

    def __call__(self, module: Exportable, component: Component, feed: Feed) -> list[Array]:
        """A component's outputs in the spec's order; CheckpointError if they are not finite."""
        self.feeds[component.name].append(feed)
        place = self.checkpoint.place(component)
        with explained(f"{place} loads but does not run"), torch.no_grad():
            outputs = module(*(torch.from_numpy(feed[tensor.name]) for tensor in component.inputs))
            arrays = [o.numpy() for o in (outputs if len(component.outputs) > 1 else [outputs])]
        if not all(np.isfinite(array).all() for array in arrays):
            raise CheckpointError(
                f"{place} gives values that are not finite: its weights are damaged; "
                "download it again"
            )
        return arrays

    def named(self, module: Exportable, component: Component) -> Run:
        """A component as a function from inputs to outputs, both by name."""
        names = [tensor.name for tensor in component.outputs]
        return lambda feed: dict(zip(names, self(module, component, feed), strict=True))


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn whatever the libraries raise for a damaged checkpoint into one sentence."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{what}: {reason(error)}; download the checkpoint again") from error
