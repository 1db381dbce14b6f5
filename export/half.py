"""A finished float32 export to one whose graphs compute in float16."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime

from export.calibration import Feed, record
from export.errors import PrecisionError
from export.precision import write_half
from export.ranges import check_ranges
from export.target import GRAPH, Target, graph_digest, replaced, write_manifest
from pipelines.manifest import FILE, Manifest

log = logging.getLogger(__name__)

# The norm of the difference over that of the float32 output. The SD3 miniature is within 0.002.
TOLERANCE = 0.01


def halve(target: Target) -> None:
    """Convert every graph of a finished float32 export in its place.

    All ranges are checked before anything is written. Raises PrecisionError; if a converted
    graph strays from its float32 one, the repository then has no manifest.
    """
    manifest = Manifest.read(target.prepare)
    components = target.checkpoint.pipeline.components
    log.info("drawing pictures to learn what float16 must hold")
    feeds = record(target)
    for component in components:
        check_ranges(target.version(component) / GRAPH, component.name, feeds[component.name])
    (target.prepare / FILE).unlink()
    for component in components:
        graph = target.version(component) / GRAPH
        with replaced(target.version(component)) as folder:
            half = write_half(graph, component.name, folder)
            distance = _distance(graph, half, feeds[component.name])
            _check(component.name, distance)
        log.info("%s: float16, %.1e from float32 (relative)", component.name, distance)
    graphs = {c.name: graph_digest(target.version(c)) for c in components}
    write_manifest(replace(manifest, precision="fp16", graphs=graphs), target.prepare)


def _distance(graph: Path, half: Path, feeds: Iterable[Feed]) -> float:
    """The greatest distance of any output, relative to its norm; NaN if one is not finite.

    ONNX Runtime's CPU kernels keep float32 between many nodes, so this finds wrong conversions;
    what a GPU would overflow is found by ``check_ranges``.
    """
    half_session, session = (
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for path in (half, graph)
    )
    distances = [
        float(np.linalg.norm(got.astype(np.float64) - wanted))
        / (float(np.linalg.norm(wanted.astype(np.float64))) or 1.0)
        for feed in feeds
        for got, wanted in zip(half_session.run(None, feed), session.run(None, feed), strict=True)
    ]
    return float(np.max(distances))


def _check(component: str, distance: float) -> None:
    if not distance <= TOLERANCE:
        raise PrecisionError(
            f"{component}: its float16 graph is {distance:.2g} from the float32 one where "
            f"{TOLERANCE:g} is allowed (relative); widen its row of ISLANDS in "
            "export/islands.py or export with --precision fp32"
        )
