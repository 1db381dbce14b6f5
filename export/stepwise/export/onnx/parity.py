"""Compares graphs with torch: the same inputs through both, at sizes that were not traced."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stepwise.description.spec import Component, Tensor
from stepwise.export.errors import ParityError
from stepwise.export.modules.exportable import Exportable
from stepwise.export.onnx.ort import open_session
from stepwise.export.onnx.parity_report import Parity
from stepwise.export.onnx.shapes import Sizes

_FLOAT_TOLERANCE = 1e-4
# Relative to the greatest value, if that is more than 20: Qwen's residual stream reaches thousands.
_LARGE_TOLERANCE = 5e-6
# Pictures are rounded to levels of 0 to 255, where a difference of 1e-6 may change a level.
_LEVEL_TOLERANCE = 1.0

Array = npt.NDArray[Any]


def check(rows: Iterable[Parity]) -> None:
    """Raise ParityError for the first output that is further from torch's than its tolerance."""
    for row in rows:
        if not row.ok:
            raise ParityError(
                f"{row.component}: {row.output} of shape {row.shape} differs by "
                f"{row.difference:.2e} from torch where at most {row.tolerance:g} is allowed; "
                "the graph was not kept, so check the versions of torch and onnxruntime"
            )


@dataclass(frozen=True)
class Example:
    """Inputs of a component by name, and torch's outputs in the spec's order."""

    feed: Mapping[str, Array]
    outputs: tuple[Array, ...]


def expect(module: Exportable, component: Component, sizes: Iterable[Sizes]) -> list[Example]:
    """The outputs of ``module`` for random inputs at each of ``sizes``; it can be freed then."""
    return [_example(module, component, size) for size in sizes]


def _example(module: Exportable, component: Component, sizes: Sizes) -> Example:
    torch.manual_seed(0)
    inputs = module.example(sizes)
    with torch.no_grad():
        given = module(*inputs)
    outputs = given if isinstance(given, tuple) else (given,)
    names = [tensor.name for tensor in component.inputs]
    feed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
    return Example(feed, tuple(output.numpy() for output in outputs))


def compare(component: Component, graph: Path, examples: Iterable[Example]) -> list[Parity]:
    """Run a graph on the same inputs and compare its outputs with torch's.

    Floats may differ by 1e-4 or, if any is greater than 20, by 5e-6 times the greatest; pictures by
    one level.
    """
    session = open_session(graph)
    names = [tensor.name for tensor in component.outputs]
    return [
        measure(component.name, tensor, reference, value)
        for example in examples
        for tensor, reference, value in zip(
            component.outputs, example.outputs, session.run(names, example.feed), strict=True
        )
    ]


def measure(component: str, output: Tensor, reference: Array, got: Array) -> Parity:
    """The distance of an output from its reference; an infinite one if their shapes differ."""
    same = reference.shape == got.shape
    distance = got.astype(np.float64) - reference if same else np.full(1, np.inf)
    norm = float(np.linalg.norm(reference.astype(np.float64)))
    return Parity(
        component=component,
        output=output.name,
        shape=got.shape,
        difference=float(np.abs(distance).max()),
        # A reference of zeros has no norm to compare with.
        relative=float(np.linalg.norm(distance)) / (norm or 1.0),
        changed=float(np.mean(distance != 0)),
        tolerance=_tolerance(output, reference),
    )


def _tolerance(output: Tensor, reference: Array) -> float:
    if output.dtype == "UINT8":
        return _LEVEL_TOLERANCE
    return max(_FLOAT_TOLERANCE, _LARGE_TOLERANCE * float(np.abs(reference).max()))
