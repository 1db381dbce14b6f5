"""Measures the quantized graphs of a full-size UNet: bytes on disk, memory and one step.

Weights are random, so there is nothing to calibrate: every layer has the same range, and the bits
are chosen to fill a budget. File sizes depend on neither.
"""

import shutil
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.full_size.apart import Figures, apart
from benchmarks.full_size.component import Job
from stepwise.description.graph_files import GRAPH
from stepwise.export.fp16.convert import write_half
from stepwise.export.loading.loader import load
from stepwise.export.onnx.exporter import write_graph
from stepwise.export.onnx.shapes import traced
from stepwise.export.quantize.calibration.activation_ranges import Activation, Range
from stepwise.export.quantize.calibration.bos_token import FirstToken
from stepwise.export.quantize.graphs import onnxruntime_graph
from stepwise.export.quantize.layers import Layer
from stepwise.export.quantize.plan import Entry, Plan
from stepwise.export.quantize.recipe import Recipe
from stepwise.export.quantize.search.bit_allocation import Choice, allocate, size
from stepwise.export.quantize.search.runtimes import RUNTIMES, Runtime, limit
from stepwise.export.quantize.validate import layers_of

# Required size of the FP16 file over a budget's file.
FLOORS = {"w8a8": 1.95, "w4a8": 3.0}
BLOCKS = (32, 64, 128)
_CALLS = 3
_RANGE = Range(-8.0, 8.0)


def measure(job: Job) -> Figures:
    """Bytes of each graph, and seconds and memory of one step of a 512 x 512 picture."""
    job.scratch.mkdir(parents=True, exist_ok=True)
    figures: Figures = {"float": apart(_float, job), "fp16": apart(_half, job)}
    figures["float step"] = apart(_step, job, "float")
    for budget, block in (("w8a8", 64), *(("w4a8", block) for block in BLOCKS)):
        name = f"{budget} in blocks of {block}"
        figures[name] = apart(_quantized, job, budget, block)
        figures[name]["times_smaller_than_fp16"] = round(
            figures["fp16"]["bytes"] / figures[name]["bytes"], 3
        )
        step = apart(_step, job, budget)
        step["times_as_fast"] = round(
            figures["float step"]["step_seconds"] / step["step_seconds"], 3
        )
        figures[f"{name} step"] = step
        shutil.rmtree(job.scratch / budget)
        print(f"{name}: {figures[name]} {figures[f'{name} step']}", flush=True)
    shutil.rmtree(job.scratch)
    return figures


def passed(figures: Figures) -> bool:
    """Whether every file is as small as its budget requires."""
    return all(
        found["times_smaller_than_fp16"] >= FLOORS[name.split()[0]]
        for name, found in figures.items()
        if "times_smaller_than_fp16" in found
    )


def _float(job: Job) -> Figures:
    """Write the float32 graph with weights in the checkpoint's dtype."""
    checkpoint = job.target.checkpoint
    module = load(checkpoint, job.component)
    sizes = traced(checkpoint.sides, checkpoint.vae_scale, 0)
    write_graph(module, job.component, sizes, job.folder("float"), narrow=True)
    return {"bytes": _bytes(job.scratch / "float")}


def _half(job: Job) -> Figures:
    write_half(job.scratch / "float" / GRAPH, job.target.keep(job.component), job.folder("fp16"))
    found = {"bytes": _bytes(job.scratch / "fp16")}
    shutil.rmtree(job.scratch / "fp16")
    return found


def _quantized(job: Job, budget: str, block: int) -> Figures:
    layers = layers_of(job.target.checkpoint)
    runtime = RUNTIMES["onnxruntime"]
    runtime = replace(runtime, rounding=replace(runtime.rounding, block=block))
    start = time.monotonic()
    chosen = allocate(*_choices(layers, runtime, budget))
    seconds = time.monotonic() - start
    recipe = _recipe(layers, runtime, {name: choice.bits for name, choice in chosen.items()}, block)
    onnxruntime_graph.write(job.scratch / "float" / GRAPH, recipe, job.folder(budget))
    allowed = limit(budget, layers, runtime).size
    return {
        "bytes": _bytes(job.scratch / budget),
        "weights": size(chosen),
        "share_of_budget": round(size(chosen) / allowed, 5),
        "allocation_seconds": round(seconds, 2),
    }


def _choices(
    layers: tuple[Layer, ...], runtime: Runtime, budget: str
) -> tuple[dict[str, list[Choice]], int]:
    allowed = limit(budget, layers, runtime)
    found = {
        layer.name: [
            Choice(bits, runtime.size(layer, bits), float(bits))
            for bits in allowed.bits & runtime.bits(layer).keys()
        ]
        for layer in layers
    }
    return found, allowed.size


def _recipe(
    layers: tuple[Layer, ...], runtime: Runtime, bits: dict[str, int], block: int
) -> Recipe:
    entries = {
        layer.name: Entry(bits[layer.name], runtime.bits(layer)[bits[layer.name]])
        for layer in layers
    }
    ranges = {
        layer.name: Activation((_RANGE,) * (1 + (layer.split is not None)), _RANGE)
        for layer in layers
    }
    texts = [layer for layer in layers if layer.begins_alike]
    outputs = {layer.name: np.zeros(layer.shape[0], np.float32) for layer in texts}
    first = FirstToken(np.zeros(texts[0].shape[1], np.float32), outputs)
    return Recipe(layers, Plan("", "", 0, entries), ranges, first, block)


def _step(job: Job, name: str) -> Figures:
    """The median of several calls. ONNX Runtime widens float weights once, on opening the graph."""
    graph = job.scratch / name / GRAPH
    session, spent = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]), []
    generator = np.random.default_rng(0)
    sizes = job.sizes(job.side, batch=1)
    feed = {
        value.name: generator.standard_normal([sizes.get(d, d) for d in value.shape], np.float32)
        for value in session.get_inputs()
    }
    for _ in range(_CALLS):
        start = time.perf_counter()
        (output,) = session.run(None, feed)
        spent.append(time.perf_counter() - start)
    return {
        "step_seconds": round(statistics.median(spent), 2),
        "finite": bool(np.isfinite(output).all()),
    }


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob(f"{GRAPH}*"))
