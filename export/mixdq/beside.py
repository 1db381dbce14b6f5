"""A quantized graph, and beside it all that was decided and measured to make it."""

import json
import logging
from dataclasses import asdict
from pathlib import Path

from export.mixdq import onnxruntime_graph
from export.mixdq.kernels import Computed, onnxruntime_kernels, table
from export.mixdq.quantize import prepare
from export.quantization import PLAN, Quantization
from export.rehearsal import Feed
from export.target import Target

log = logging.getLogger(__name__)

RANGES, KERNELS = "ranges.json", "kernels.json"


def write(target: Target, wanted: Quantization, source: Path, feed: Feed, folder: Path) -> None:
    """Write the float32 graph ``source`` quantized into ``folder``, with its plan and a report.

    The plan can be edited and given to ``--plan``. ``ranges.json`` has what is told apart by 8 bits
    of each layer's activations, ``kernels.json`` what ONNX Runtime computes each layer in when it
    is given ``feed``.
    """
    recipe = prepare(target.checkpoint, wanted, "onnxruntime")
    graph = onnxruntime_graph.write(source, recipe, folder)
    recipe.plan.write(folder / PLAN)
    ranges = {name: asdict(found) for name, found in recipe.activations.items()}
    _write(ranges, folder / RANGES)
    kernels = onnxruntime_kernels(graph, recipe.plan, feed)
    _write({found.layer: _row(found) for found in kernels}, folder / KERNELS)
    log.info("layers by arithmetic and kernels:\n%s", table(kernels))


def _row(found: Computed) -> dict[str, object]:
    return {key: value for key, value in asdict(found).items() if key != "layer"}


def _write(rows: dict[str, dict[str, object]], path: Path) -> None:
    """JSON with a line for each layer."""
    lines = [f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
