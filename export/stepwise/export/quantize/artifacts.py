"""Writes a quantized graph and, next to it, its plan, ranges and kernels."""

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from stepwise.description.spec import Component
from stepwise.export.onnx.graph_files import ENGINE_GRAPH
from stepwise.export.onnx.ort import Feed
from stepwise.export.options import PLAN, Quantization
from stepwise.export.quantize import ranges
from stepwise.export.quantize.graphs import onnxruntime_graph, tensorrt_graph
from stepwise.export.quantize.graphs.kernel_report import (
    Computed,
    onnxruntime_kernels,
    table,
    tensorrt_kernels,
)
from stepwise.export.quantize.pipeline import prepare
from stepwise.export.quantize.plan import Plan
from stepwise.export.repository.layout import Target
from stepwise.export.tensorrt.builder_log import Kernel

log = logging.getLogger(__name__)

KERNELS, ENGINE_KERNELS = "kernels.json", "engine_kernels.json"


def write(target: Target, wanted: Quantization, source: Path, feed: Feed, folder: Path) -> None:
    """Quantize the float32 graph ``source`` into ``folder``, with its plan and a report.

    One graph is for ONNX Runtime, and another one of the same plan for engines. The plan can be
    edited and given to ``--plan``; as long as the ranges next to it match, nothing is calibrated
    again. ``ranges.json`` has the 8-bit ranges of each layer's activations, ``kernels.json`` the
    arithmetic of each layer when ONNX Runtime runs ``feed``.
    """
    recipe = prepare(target.checkpoint, wanted, "onnxruntime")
    graph = onnxruntime_graph.write(source, recipe, folder)
    for_engines = (folder / ENGINE_GRAPH).parent
    for_engines.mkdir()
    keep = target.keep(target.checkpoint.family.denoiser)
    tensorrt_graph.write(source, recipe, keep, for_engines)
    recipe.plan.write(folder / PLAN)
    found = ranges.rows(recipe.activations, recipe.plan.layers, recipe.recorded)
    _write(found, folder / ranges.FILE)
    _report(onnxruntime_kernels(graph, recipe.plan, feed), folder / KERNELS)


def report(target: Target, component: Component, kernels: Iterable[Kernel]) -> None:
    """Write ``engine_kernels.json``: the arithmetic of each layer in an engine."""
    folder = target.version(component)
    plan = Plan.read(folder / PLAN)
    _report(tensorrt_kernels(kernels, plan), folder / ENGINE_KERNELS)


def _report(kernels: Sequence[Computed], path: Path) -> None:
    _write({found.layer: _row(found) for found in kernels}, path)
    log.info("layers by arithmetic and kernels:\n%s", table(kernels))


def _row(found: Computed) -> dict[str, object]:
    return {key: value for key, value in asdict(found).items() if key != "layer"}


def _write(rows: dict[str, dict[str, object]], path: Path) -> None:
    """Write JSON with one line per layer."""
    lines = [f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
