"""Converts a float32 graph to float16 and checks its outputs."""

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stepwise.export.errors import PrecisionError
from stepwise.export.families.base import Keep
from stepwise.export.fp16.convert import write_half
from stepwise.export.fp16.range_check import check_ranges
from stepwise.export.onnx.ort import Feed, open_session

# The norm of the difference over that of the float32 output. The SD3 miniature is within 0.002.
TOLERANCE = 0.01
# One step of each picture, a different one each time.
_COMPARED = 4


def halve(graph: Path, keep: Keep, feeds: Sequence[Feed], folder: Path) -> float:
    """Convert the float32 graph at ``graph`` to float16 and write it into ``folder``.

    ``feeds`` are the graph's inputs while pictures were drawn. Returns the greatest distance of an
    output from that of ``graph``, relative to its norm. Raises PrecisionError if values leave the
    range of float16 or the distance exceeds ``TOLERANCE``.
    """
    check_ranges(graph, keep, feeds)
    # Graphs contain reference cycles, and keep their weights mapped until they are collected.
    gc.collect()
    half = write_half(graph, keep, folder)
    gc.collect()
    compared = feeds[:: len(feeds) // _COMPARED + 1]
    # One after the other, so that the weights are not in memory twice.
    wanted, got = (_outputs(path, compared) for path in (graph, half))
    distance = float(np.max([_distance(*pair) for pair in zip(wanted, got, strict=True)]))
    _check(keep.component, distance)
    return distance


def _outputs(path: Path, feeds: Sequence[Feed]) -> list[npt.NDArray[Any]]:
    session = open_session(path)
    return [output for feed in feeds for output in session.run(None, feed)]


def _distance(wanted: npt.NDArray[Any], got: npt.NDArray[Any]) -> float:
    """The distance of an output, relative to its norm; NaN if it is not finite.

    ONNX Runtime's CPU kernels keep float32 between many nodes, so this finds wrong conversions;
    ``check_ranges`` finds values that overflow on a GPU.
    """
    norm = float(np.linalg.norm(wanted.astype(np.float64)))
    return float(np.linalg.norm(got.astype(np.float64) - wanted)) / (norm or 1.0)


def _check(component: str, distance: float) -> None:
    if not distance <= TOLERANCE:
        raise PrecisionError(
            f"{component}: its float16 graph differs from the float32 one by {distance:.2g} where "
            f"{TOLERANCE:g} is allowed (relative); widen keep_in_fp32 of its family in "
            "stepwise.export or export with --precision fp32"
        )
