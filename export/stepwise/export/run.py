"""Writes what a checkpoint adds to a model repository: graphs, their configs, tokenizers, manifest.

The manifest comes last: a repository without it was not finished.
"""

import gc
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from export import configs, finished, parity, progress, report
from export.graph import write_graph
from export.graph_config import graph_config
from export.half import halve
from export.keys import export_key
from export.loading import load
from export.progress import Stage
from export.report import Parity
from export.running import Feed, Feeds
from export.shapes import traced, untraced
from export.target import (
    GRAPH,
    TRACE,
    Target,
    describe,
    graph_digest,
    replaced,
    write_manifest,
)
from export.tokenizer import chat_templates, token_length, write_tokenizers
from pipelines.formats import graph_format
from pipelines.manifest import FILE, TOKENIZERS
from pipelines.spec import Component

log = logging.getLogger(__name__)

_REFERENCE = "reference"
# What ``checked_graph`` shows, and what the other two show after it.
_STAGES = 4


def export(target: Target, feeds: Feeds) -> list[Parity]:
    """Export every component of a checkpoint; return how far each graph is from torch.

    Graphs that are finished, here or in another place, are kept or taken. ``feeds`` are what the
    components are given while pictures are drawn, which float16 is held to. Raises
    CheckpointError, GraphError, ParityError or PrecisionError; the repository then has no manifest.
    """
    target.prepare.mkdir(parents=True, exist_ok=True)
    (target.prepare / FILE).unlink(missing_ok=True)
    pipeline = target.checkpoint.pipeline
    tokens = {
        encoder.name: token_length(target.checkpoint, encoder) for encoder in pipeline.encoders
    }
    rows: list[Parity] = []
    for component in pipeline.components:
        kept = finished.read(target, component)
        if kept is None:
            kept = _export_component(target, component, tokens, feeds)
        else:
            log.info("%s: finished before", component.name)
        rows += kept
    write_tokenizers(target.checkpoint, target.prepare / TOKENIZERS)
    report.write(rows, target.prepare)
    _write_manifest(target, tokens)
    return rows


def _export_component(
    target: Target, component: Component, tokens: Mapping[str, int], feeds: Feeds
) -> list[Parity]:
    """Take or make one component; its model folder is complete or has no version."""
    start = time.monotonic()
    with replaced(target.version(component)) as folder:
        rows = finished.take(target, component, folder)
        told = "taken from one that is the same" if rows else "done"
        if rows is None:
            finished.take_trace(target, component, folder)
            rows = _made(target, component, tokens, feeds, folder)
            finished.write(target, component, rows, folder)
        text = configs.render(graph_config(component, target.name, folder / GRAPH))
        (target.model(component) / configs.FILE).write_text(text)
    finished.keep(target.version(component))
    log.info("%s: %s in %.1f s", component.name, told, time.monotonic() - start)
    return rows


def _made(
    target: Target, component: Component, tokens: Mapping[str, int], feeds: Feeds, folder: Path
) -> list[Parity]:
    """Load, write and check one component; its trace is kept in ``folder``."""
    quantized = target.is_quantized(component)
    if target.precision == "fp32" and not quantized:
        with progress.stages(component.name, _STAGES) as stage:
            return checked_graph(target, component, tokens, folder, folder / TRACE, stage=stage)
    with scratch(folder) as reference, progress.stages(component.name, _STAGES + 1) as stage:
        single = checked_graph(
            target, component, tokens, reference, folder / TRACE, narrow=True, stage=stage
        )
        if quantized:
            stage("quantizing")
            _quantize(target, reference / GRAPH, feeds[component.name], folder)
        else:
            stage("turning to float16")
            distance = halve(reference / GRAPH, component.name, feeds[component.name], folder)
            log.info("%s: float16, %.1e from float32 (relative)", component.name, distance)
        return single


def _quantize(target: Target, graph: Path, feeds: Sequence[Feed], folder: Path) -> None:
    # What it needs takes seconds to import.
    from export.mixdq import beside

    assert target.quantization is not None
    beside.write(target, target.quantization, graph, feeds[0], folder)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder for the graph that another one is made from; gone after the block."""
    reference = folder / _REFERENCE
    reference.mkdir()
    yield reference
    shutil.rmtree(reference)


def checked_graph(
    target: Target,
    component: Component,
    tokens: Mapping[str, int],
    folder: Path,
    trace: Path | None = None,
    *,
    narrow: bool = False,
    stage: Stage = progress.unseen,
) -> list[Parity]:
    """Write a component's float32 graph and compare it with torch, which is freed before.

    ``trace`` and ``narrow`` are as in ``write_graph``.
    """
    checkpoint, length = target.checkpoint, tokens.get(component.name, 0)
    scale = checkpoint.vae_scale
    stage("loading")
    module = load(checkpoint, component)
    count = sum(parameter.numel() for parameter in module.parameters())
    log.info("%s: exporting %.1f million parameters", component.name, count / 1e6)
    stage("tracing and writing")
    sizes = traced(checkpoint.sides, scale, length)
    path = write_graph(module, component, sizes, folder, trace=trace, narrow=narrow)
    stage("running torch")
    others = untraced(checkpoint.pipeline, checkpoint.sides, scale, length)
    examples = parity.expect(module, component, others)
    del module
    gc.collect()
    stage("comparing")
    rows = parity.compare(component, path, examples)
    parity.check(rows)
    return rows


def _write_manifest(target: Target, tokens: dict[str, int]) -> None:
    components = target.checkpoint.pipeline.components
    manifest = replace(
        describe(target.checkpoint, target.name, tokens, chat_templates(target.checkpoint)),
        precision=target.precision,
        graphs={c.name: graph_digest(target.version(c)) for c in components},
        source=export_key(target),
        quantized=target.quantized,
        formats={
            c.name: graph_format(c, target.precision, target.is_quantized(c)) for c in components
        },
    )
    write_manifest(manifest, target.prepare)
