"""Exports a component and measures memory, time, its graphs' distance from torch, its engine."""

import gc
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.full_size.apart import Figures, apart
from stepwise.description.graph_files import GRAPH
from stepwise.description.spec import Component
from stepwise.export.checkpoint.tokenizer import token_length
from stepwise.export.families import family_export
from stepwise.export.fp16.convert import write_half
from stepwise.export.fp16.fp16_pass import halve
from stepwise.export.loading.loader import load
from stepwise.export.loading.source import open_checkpoint
from stepwise.export.onnx import parity
from stepwise.export.onnx.exporter import write_graph
from stepwise.export.onnx.ort import open_session
from stepwise.export.onnx.shapes import shape, traced
from stepwise.export.preflight.resources import costs
from stepwise.export.repository.layout import Target
from stepwise.export.run import checked_graph
from stepwise.export.tensorrt.builder import build
from stepwise.export.tensorrt.profiles import Profile
from stepwise.families import FAMILIES

Array = npt.NDArray[Any]
# ‖difference‖ / ‖reference‖ of a graph and torch. Float32 pictures may differ by one level.
TOLERANCES = {"fp16": 1e-2, "fp32": 1e-4}
LEVELS = 1.0
# Allowed resident memory of an fp16 export: a multiple of its weights on disk, plus bytes.
FACTOR, FURTHER_BYTES = 1.3, 2 << 30
# Engines are for Ada Lovelace: pictures of 256 to 1024 pixels a side, one to four rows.
LIBRARY, CAPABILITY = "tensorrt-rtx", "8.9"
_SIDES, _ROWS = (256, 1024, 1024), (1, 2, 4)
# Latent frames: of the video that is run, and of the engine's profile.
_FRAMES, _ENGINE_FRAMES = 5, (1, 13, 13)


@dataclass(frozen=True)
class Job:
    """A component of a checkpoint, the side of its pictures, and a folder for temporary graphs."""

    family: str
    name: str
    checkpoint: Path
    side: int
    scratch: Path

    @property
    def component(self) -> Component:
        """The component to measure."""
        components = self.target.checkpoint.family.components
        return next(component for component in components if component.name == self.name)

    @property
    def target(self) -> Target:
        """The export's target."""
        checkpoint = open_checkpoint(self.checkpoint, FAMILIES[self.family])
        return Target(checkpoint, self.scratch, self.family, "fp16")

    @property
    def tokens(self) -> dict[str, int]:
        """The number of tokens that the component gets; 0 if it is not an encoder."""
        component = self.component
        length = token_length(self.target.checkpoint, component) if component.tokenizer else 0
        return {component.name: length}

    def sizes(self, side: int, batch: int, frames: int = 1) -> dict[str, int]:
        """The size of every dynamic axis for ``batch`` pictures of ``side`` pixels a side.

        ``frames`` are latent frames, for videos.
        """
        checkpoint = self.target.checkpoint
        usual = checkpoint.family.ranges["text"].usual
        latents = side // checkpoint.vae_scale
        sizes = {"batch": batch, "tokens": self.tokens[self.name], "text": usual}
        video = family_export(checkpoint.family.name).video_layout(checkpoint)
        if video:
            patches = frames * (latents // video.patch) ** 2
            sizes |= {"frames": frames, "patches": patches, "slice": 1, "first": 1}
        return sizes | {"height": latents, "width": latents}

    def folder(self, name: str) -> Path:
        """A new folder for a graph."""
        folder = self.scratch / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


def measure(job: Job, *, engine: bool) -> Figures:
    """Run every step in a separate process; figures in seconds, bytes and relative distances."""
    job.scratch.mkdir(parents=True, exist_ok=True)
    (cost,) = costs(job.target, [job.component])
    figures: Figures = {"parameters": cost.parameters, "side": job.side}
    steps = {"torch": _torch, "export": _export, "fp16": _half, "fp32": _single}
    for name, step in {**steps, **({"engine": _engine} if engine else {})}.items():
        figures[name] = apart(step, job)
        print(f"{name}: {figures[name]}", flush=True)
    export = figures["export"]
    single = figures["fp32"]
    figures["checks"] = {
        "memory": {"got": export["peak"], "allowed": _allowed(export), "expected": cost.memory},
        "fp16": {"got": figures["fp16"]["relative"], "allowed": TOLERANCES["fp16"]},
        "fp32": {"got": single["levels"], "allowed": LEVELS}
        if single["levels"] is not None
        else {"got": single["relative"], "allowed": TOLERANCES["fp32"]},
    }
    shutil.rmtree(job.scratch)
    return figures


def exported(job: Job) -> Figures:
    """The memory and time of an export alone, in a process of its own."""
    job.scratch.mkdir(parents=True, exist_ok=True)
    apart(_torch, job)
    figures = apart(_export, job)
    shutil.rmtree(job.scratch)
    return figures


def written(job: Job) -> Figures:
    """Write a component's float16 graph without running it; check the export's memory.

    For a component too large for ONNX Runtime on this machine; its layers are checked a few at a
    time elsewhere.
    """
    job.scratch.mkdir(parents=True, exist_ok=True)
    (cost,) = costs(job.target, [job.component])
    figures: Figures = {"parameters": cost.parameters, "export": apart(_written, job)}
    export = figures["export"]
    figures["checks"] = {"memory": {"got": export["peak"], "allowed": _allowed(export)}}
    shutil.rmtree(job.scratch)
    return figures


def passed(figures: Figures) -> bool:
    """Whether every check of a record is within its limit."""
    return all(check["got"] <= check["allowed"] for check in figures["checks"].values())


def _torch(job: Job) -> Figures:
    """Run torch on random inputs and save its outputs for the other steps."""
    module, sizes = (
        load(job.target.checkpoint, job.component),
        job.sizes(job.side, batch=1, frames=_FRAMES),
    )
    (example,) = parity.expect(module, job.component, [sizes])
    np.savez(job.scratch / "feed.npz", **example.feed)
    np.savez(job.scratch / "outputs.npz", *example.outputs)
    return {}


def _feed(job: Job) -> dict[str, Array]:
    with np.load(job.scratch / "feed.npz") as file:
        return dict(file)


def _export(job: Job) -> Figures:
    """Export a component as float16; keep the intermediate float32 graph."""
    reference, folder = job.folder("fp32"), job.folder("fp16")
    checked_graph(job.target, job.component, job.tokens, reference, narrow=True)
    halve(reference / GRAPH, job.target.keep(job.component), [_feed(job)], folder)
    return {"weights": _weights(folder)}


def _written(job: Job) -> Figures:
    reference, folder = job.folder("fp32"), job.folder("fp16")
    checkpoint = job.target.checkpoint
    sizes = traced(checkpoint.sides, checkpoint.vae_scale, job.tokens[job.name])
    write_graph(load(checkpoint, job.component), job.component, sizes, reference, narrow=True)
    gc.collect()
    write_half(reference / GRAPH, job.target.keep(job.component), folder)
    return {"weights": _weights(folder)}


def _weights(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob(f"{GRAPH}*"))


def _allowed(export: Figures) -> int:
    return int(FACTOR * export["weights"] + FURTHER_BYTES)


def _half(job: Job) -> Figures:
    return _distance(job, job.scratch / "fp16" / GRAPH)


def _single(job: Job) -> Figures:
    return _distance(job, job.scratch / "fp32" / GRAPH)


def _distance(job: Job, graph: Path) -> Figures:
    """A graph's distance from torch: relative to the norm, and in levels for pictures."""
    tensors = job.component.outputs
    outputs = open_session(graph).run([tensor.name for tensor in tensors], _feed(job))
    with np.load(job.scratch / "outputs.npz") as file:
        rows = [
            parity.measure(job.name, tensor, wanted, got)
            for tensor, wanted, got in zip(tensors, file.values(), outputs, strict=True)
        ]
    levels = [row.difference for row, t in zip(rows, tensors, strict=True) if t.dtype == "UINT8"]
    return {"relative": max(row.relative for row in rows), "levels": max(levels, default=None)}


def _engine(job: Job) -> Figures:
    ends = list(map(job.sizes, _SIDES, _ROWS, _ENGINE_FRAMES))
    feed = _feed(job)
    profile = {
        tensor.name: Profile(*(shape(tensor.dims, feed[tensor.name].shape, s) for s in ends))
        for tensor in job.component.inputs
    }
    built = build(LIBRARY, job.scratch / "fp16" / GRAPH, [profile], CAPABILITY)
    return {"library": LIBRARY, "capability": CAPABILITY, "bytes": len(built.plan)}
