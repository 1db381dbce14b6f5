"""The rows of the table: each method to make a UNet smaller, and the resulting graph."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.quantization.baselines import (
    DEFAULT,
    SMOOTHQUANT,
    Feed,
    fake_quantize,
    naive,
    stock,
    write_fake_quantized,
)
from benchmarks.quantization.setup import Subject, less
from stepwise.export.fp16.convert import write_half
from stepwise.export.options import BUDGETS
from stepwise.export.quantize.calibration.sampling import Study, draw
from stepwise.export.quantize.graphs import onnxruntime_graph
from stepwise.export.quantize.graphs.kernel_report import onnxruntime_kernels, share
from stepwise.export.quantize.layers import Group
from stepwise.export.quantize.pipeline import Findings
from stepwise.export.quantize.plan import Entry, Plan
from stepwise.export.quantize.search import sensitivity

RUNTIME = "onnxruntime"
FP32 = "FP32"
STOCK = "onnxruntime.quantization static W8A8"
# The ablation rows use this row's bits.
WHOLE = "MixDQ W8A8"
Entries = Mapping[str, Entry]
# By the name of the budget.
Plans = Mapping[str, Entries]


@dataclass(frozen=True)
class Row:
    """A graph of the UNet; ``told`` holds further figures of it."""

    label: str
    graph: Path
    told: Mapping[str, Any]


def rows(subject: Subject, plans: Plans) -> Iterator[Row]:
    """All rows, float graphs first."""
    yield Row(FP32, subject.graph, {})
    yield Row("FP16", write_half(subject.graph, subject.keep, _place(subject, "FP16")), {})
    for label, bits in (("naive min-max W8A8", 8), ("naive min-max W4A8", 4)):
        yield _row(subject, label, _simple(subject), _everywhere(subject, bits))
    yield _stock(subject)
    for label, config in (
        ("nvidia-modelopt INT8 default", DEFAULT),
        ("nvidia-modelopt INT8 SmoothQuant", SMOOTHQUANT),
    ):
        yield _modelopt(subject, label, config)
    yield from _mixdq(subject, plans)


def choose(subject: Subject) -> Plans:
    """The method's plan for each named budget."""
    return {name: subject.findings.entries(RUNTIME, name)[0] for name in BUDGETS}


def _mixdq(subject: Subject, plans: Plans) -> Iterator[Row]:
    """The rows of the method, and those of the method without each of its parts."""
    for name, entries in plans.items():
        yield _row(subject, f"MixDQ {name.upper()}", subject.findings, entries)
    reduced = {name: _reduced(entry) for name, entry in plans["w8a8"].items()}
    yield _row(subject, f"{WHOLE}, weights of 7 bits", subject.findings, reduced)
    parts: dict[str, dict[str, Any]] = {"BOS": {"begins_alike": False}, "split": {"split": None}}
    for part, changes in parts.items():
        yield _row(subject, f"{WHOLE} less {part}", less(subject, **changes), plans["w8a8"])
    together = _together(subject)
    for name in ("w8a8", "w4a8"):
        entries, _ = together.entries(RUNTIME, name)
        yield _row(subject, f"MixDQ {name.upper()} less decoupling", subject.findings, entries)


def _reduced(entry: Entry) -> Entry:
    """The entry for processors on which sums of 8-bit products saturate."""
    return replace(entry, weight_bits=7) if entry.weight_bits == 8 else entry


def _together(subject: Subject) -> Findings:
    """Findings with all layers judged by SQNR alone; reuses the measurements of quality layers."""
    known = subject.findings.folder
    folder = known.with_name(f"{known.name}_together")
    sensitivity.borrow(known, folder, lambda trial: trial.group is Group.QUALITY)
    return replace(less(subject, group=Group.QUALITY), folder=folder)


def _row(subject: Subject, label: str, findings: Findings, entries: Entries) -> Row:
    plan = Plan("", "", 0, entries)
    graph = onnxruntime_graph.write(subject.graph, findings.recipe(plan), _place(subject, label))
    kernels = onnxruntime_kernels(graph, plan, feeds(findings.study, 1)[0])
    counts = {
        f"{weights}-bit weights, {activations}-bit activations": sum(
            (entry.weight_bits, entry.activation_bits) == (weights, activations)
            for entry in entries.values()
        )
        for weights, activations in sorted(
            {(entry.weight_bits, entry.activation_bits) for entry in entries.values()}
        )
    }
    return Row(label, graph, {"layers": counts, "kernels_as_planned": share(kernels)})


def _simple(subject: Subject) -> Findings:
    return replace(subject.findings, layers=naive(subject.findings.layers))


def _everywhere(subject: Subject, bits: int) -> dict[str, Entry]:
    """All layers at ``bits``, but convolutions at 8."""
    return {
        layer.name: Entry(bits if layer.is_linear else 8, 8) for layer in subject.findings.layers
    }


def _stock(subject: Subject) -> Row:
    calls = feeds(subject.findings.study)
    return Row(STOCK, stock(subject.graph, calls, _place(subject, STOCK)), {})


def _modelopt(subject: Subject, label: str, config: str) -> Row:
    study = subject.source.calibration()
    _plain(study)
    fake_quantize(study.unet, config, study.pictures)
    path = _place(subject, label) / "model.onnx"
    write_fake_quantized(study.denoiser, subject.component, subject.sizes, path)
    return Row(label, path, {"weights": "stored as float32, rounded whenever the graph runs"})


def _plain(study: Study) -> None:
    """Replace a UNet's weights by plain torch parameters."""
    for module in study.unet.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            plain = torch.nn.Parameter(weight.float().detach().clone(), requires_grad=False)
            module.register_parameter(name, plain)


def feeds(study: Study, pictures: int | None = None) -> Sequence[Feed]:
    """The UNet's inputs while a study's pictures are drawn, call by call."""
    calls: list[Feed] = []

    def predict(feed: Feed) -> Any:
        calls.append(dict(feed))
        return study.predict(feed)

    for request in study.requests[:pictures]:
        draw(predict, [request])
    return calls


def _place(subject: Subject, label: str) -> Path:
    folder = subject.folder / label.replace(" ", "_")
    folder.mkdir()
    return folder
