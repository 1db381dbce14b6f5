"""Graphs against torch: the same inputs through both, at sizes that were not traced."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from export.components import Exportable
from export.errors import ParityError
from export.report import Parity
from export.shapes import Sizes
from pipelines.spec import Component, Tensor

_FLOAT_TOLERANCE = 1e-4
# Pictures are rounded to levels of 0 to 255, where a difference of 1e-6 may tip a value over.
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


def compare(
    module: Exportable, component: Component, graph: Path, sizes: Iterable[Sizes]
) -> list[Parity]:
    """Run ``module`` and its graph on the same random inputs at each of ``sizes``.

    Floats may differ by 1e-4, pictures by one level.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return [row for size in sizes for row in _rows(module, component, session, size)]


def _rows(
    module: Exportable,
    component: Component,
    session: onnxruntime.InferenceSession,
    sizes: Sizes,
) -> list[Parity]:
    torch.manual_seed(0)
    inputs = module.example(sizes)
    with torch.no_grad():
        given = module(*inputs)
    expected = given if isinstance(given, tuple) else (given,)
    names = [tensor.name for tensor in component.inputs]
    feed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
    got = session.run([tensor.name for tensor in component.outputs], feed)
    return [
        measure(component.name, tensor, reference.numpy(), value)
        for tensor, reference, value in zip(component.outputs, expected, got, strict=True)
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
        tolerance=_LEVEL_TOLERANCE if output.dtype == "UINT8" else _FLOAT_TOLERANCE,
    )
