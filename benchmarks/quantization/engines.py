"""Builds TensorRT engines from the method's plans, without needing the target GPUs."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.quantization.setup import Subject
from benchmarks.quantization.variants import feeds
from stepwise.export.quantize.graphs import tensorrt_graph
from stepwise.export.quantize.graphs.kernel_report import share, tensorrt_kernels
from stepwise.export.quantize.plan import Entry, Plan
from stepwise.export.tensorrt.builder import build
from stepwise.export.tensorrt.profiles import Profile, Profiles

LIBRARY = "tensorrt-rtx"
CAPABILITIES = ("8.0", "8.9")
# Required share of the layers planned in 8 or 4 bits that get such kernels.
LEAST = 0.95


def measure(
    subject: Subject, plans: Mapping[str, Mapping[str, Entry]], folder: Path
) -> dict[str, Any]:
    """Build each plan's graph for each GPU; count layers by arithmetic and the share as planned."""
    found: dict[str, Any] = {}
    profiles = _profiles(feeds(subject.findings.study, 1)[0])
    for name, entries in plans.items():
        place = folder / f"TensorRT_{name}"
        place.mkdir()
        plan = Plan("", "", 0, entries)
        recipe = subject.findings.recipe(plan)
        graph = tensorrt_graph.write(subject.graph, recipe, subject.keep, place)
        for capability in CAPABILITIES:
            built = build(LIBRARY, graph, [profiles], capability)
            kernels = tensorrt_kernels(built.kernels, plan)
            found[f"{name} SM{capability.replace('.', '')}"] = {
                "as_planned": round(share(kernels), 4),
                "arithmetics": dict(Counter(kernel.arithmetic for kernel in kernels)),
                "others": [k.layer for k in kernels if k.arithmetic != k.planned],
                "bytes": len(built.plan),
            }
    return found


def _profiles(feed: Mapping[str, Any]) -> Profiles:
    """Profiles for one picture size and up to 16 rows."""
    return {
        name: Profile(*((rows, *values.shape[1:]) for rows in (1, 4, 16)))
        for name, values in feed.items()
    }


def failures(found: Mapping[str, Any]) -> list[str]:
    """An error sentence for each engine with too few layers as planned."""
    return [
        f"{name}: {figures['as_planned']:.1%} of its layers are as planned, need {LEAST:.0%}"
        for name, figures in found.items()
        if figures["as_planned"] < LEAST
    ]
