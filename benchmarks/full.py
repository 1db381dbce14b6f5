"""A component of true size: what its export takes, and how far its graphs are from torch.

``python -m benchmarks.full sd3 transformer --checkpoint DIR --side 256`` adds a record to
benchmarks/results/full_size.json. Torch, the export and each graph have a process of their own, so
that each has its own peak of memory.
"""

import argparse
import json
import multiprocessing
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import report
from export import parity
from export.budget import costs
from export.checkpoint import open_checkpoint
from export.half import halve
from export.loading import load
from export.repository import checked_graph
from export.session import open_session
from export.target import GRAPH, Target
from export.tokenizer import token_length
from pipelines import PIPELINES
from pipelines.spec import Component

Array = npt.NDArray[Any]
RESULT = "full_size"
# ‖difference‖ / ‖reference‖ of a graph and torch.
TOLERANCES = {"fp16": 1e-2, "fp32": 1e-4}
# Resident memory of an export in fp16: a multiple of its weights on disk, and bytes beside.
FACTOR, BESIDE_BYTES = 1.3, 2 << 30


@dataclass(frozen=True)
class Job:
    """A component of a checkpoint, what it is run at, and where its graphs go meanwhile."""

    family: str
    name: str
    checkpoint: Path
    side: int
    scratch: Path

    @property
    def component(self) -> Component:
        """What is measured."""
        return next(c for c in PIPELINES[self.family].components if c.name == self.name)

    @property
    def target(self) -> Target:
        """Where it is exported to."""
        checkpoint = open_checkpoint(self.checkpoint, PIPELINES[self.family])
        return Target(checkpoint, self.scratch, self.family, "fp16")

    @property
    def tokens(self) -> dict[str, int]:
        """How many tokens the component is given, if it is an encoder."""
        component = self.component
        length = token_length(self.target.checkpoint, component) if component.tokenizer else 0
        return {component.name: length}

    def folder(self, name: str) -> Path:
        """A new folder for a graph."""
        folder = self.scratch / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


def measure(job: Job) -> dict[str, Any]:
    """Run every step in a process of its own; figures in seconds, bytes and relative distances."""
    job.scratch.mkdir(parents=True, exist_ok=True)
    (cost,) = costs(job.target, [job.component])
    figures: dict[str, Any] = {"parameters": cost.parameters, "side": job.side}
    for name, step in {"torch": _torch, "export": _export, "fp16": _half, "fp32": _single}.items():
        figures[name] = _alone(step, job)
        print(f"{name}: {figures[name]}", flush=True)
    export = figures["export"]
    allowed = int(FACTOR * export["weights"] + BESIDE_BYTES)
    figures["checks"] = {
        "memory": {"got": export["peak"], "allowed": allowed, "expected": cost.memory},
        **{
            name: {"got": figures[name]["relative"], "allowed": allowed}
            for name, allowed in TOLERANCES.items()
        },
    }
    shutil.rmtree(job.scratch)
    return figures


def _alone(step: Callable[[Job], dict[str, Any]], job: Job) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_timed, (step, job))


def _timed(step: Callable[[Job], dict[str, Any]], job: Job) -> dict[str, Any]:
    start = time.monotonic()
    figures = step(job)
    return {**figures, "seconds": round(time.monotonic() - start, 1), "peak": peak_bytes()}


def peak_bytes() -> int:
    """The greatest resident memory of this process, files that are mapped into it included."""
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )
    return 1024 * int(line.split()[1])


def _torch(job: Job) -> dict[str, Any]:
    """What torch makes of random inputs, kept for the other steps."""
    checkpoint = job.target.checkpoint
    latents = job.side // checkpoint.vae_scale
    usual = checkpoint.pipeline.ranges["text"].usual
    sizes = {"batch": 1, "tokens": job.tokens[job.name], "text": usual}
    sizes |= {"height": latents, "width": latents}
    (example,) = parity.expect(load(checkpoint, job.component), job.component, [sizes])
    np.savez(job.scratch / "feed.npz", **example.feed)
    np.savez(job.scratch / "outputs.npz", *example.outputs)
    return {}


def _feed(job: Job) -> dict[str, Array]:
    with np.load(job.scratch / "feed.npz") as file:
        return dict(file)


def _export(job: Job) -> dict[str, Any]:
    """The way of a component into its folder; the float32 graph that it goes by is kept."""
    reference, folder = job.folder("fp32"), job.folder("fp16")
    checked_graph(job.target, job.component, job.tokens, reference, narrow=True)
    halve(reference / GRAPH, job.name, [_feed(job)], folder)
    return {"weights": sum(path.stat().st_size for path in folder.glob(f"{GRAPH}*"))}


def _half(job: Job) -> dict[str, Any]:
    return {"relative": _distance(job, job.scratch / "fp16" / GRAPH)}


def _single(job: Job) -> dict[str, Any]:
    return {"relative": _distance(job, job.scratch / "fp32" / GRAPH)}


def _distance(job: Job, graph: Path) -> float:
    outputs = open_session(graph).run([t.name for t in job.component.outputs], _feed(job))
    with np.load(job.scratch / "outputs.npz") as file:
        rows = [
            parity.measure(job.name, tensor, wanted, got).relative
            for tensor, wanted, got in zip(
                job.component.outputs, file.values(), outputs, strict=True
            )
        ]
    return max(rows)


def passed(figures: dict[str, Any]) -> bool:
    """Whether every check of a record is within what is allowed."""
    return all(check["got"] <= check["allowed"] for check in figures["checks"].values())


def main() -> int:
    """Measure one component; the exit status is 1 if a check failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full", description=__doc__)
    parser.add_argument("family", choices=sorted(PIPELINES))
    parser.add_argument("component", help="such as transformer, unet, t5 or vae_decoder")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a diffusers folder")
    parser.add_argument("--side", type=int, default=256, help="of pictures, in pixels")
    parser.add_argument(
        "--scratch",
        type=Path,
        default=Path("out/full_size"),
        help="where graphs lie meanwhile (default: %(default)s)",
    )
    options = parser.parse_args()
    job = Job(options.family, options.component, options.checkpoint, options.side, options.scratch)
    figures = measure(job)
    path = report.RESULTS / f"{RESULT}.json"
    records = json.loads(path.read_text())["records"] if path.is_file() else {}
    command = " ".join(["python -m benchmarks.full", *sys.argv[1:]])
    records[f"{job.family} {job.name}"] = {"command": command, **figures}
    report.write(RESULT, "make full-size", {"records": records})
    return 0 if passed(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
