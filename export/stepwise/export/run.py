"""Writes a checkpoint's graphs, configs, tokenizers and manifest into a model repository.

The manifest comes last: a repository without one holds an unfinished export.
"""

import gc
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from stepwise.description.formats import graph_format
from stepwise.description.graph_files import GRAPH, graph_digest
from stepwise.description.manifest import FILE, TOKENIZERS, Manifest
from stepwise.description.spec import Component
from stepwise.export import progress
from stepwise.export.checkpoint.tokenizer import chat_templates, token_length, write_tokenizers
from stepwise.export.fp16.fp16_pass import halve
from stepwise.export.loading.loader import load
from stepwise.export.onnx import parity, parity_report, threads
from stepwise.export.onnx.exporter import write_graph
from stepwise.export.onnx.graph_files import TRACE
from stepwise.export.onnx.ort import Feed, Feeds
from stepwise.export.onnx.parity_report import Parity
from stepwise.export.onnx.shapes import traced, untraced
from stepwise.export.progress import Stage
from stepwise.export.repository import records, triton_configs
from stepwise.export.repository.axis_ranges import largest_sizes
from stepwise.export.repository.component_config import graph_config
from stepwise.export.repository.keys import export_key
from stepwise.export.repository.layout import Target, describe, replaced, write_manifest

log = logging.getLogger(__name__)

_REFERENCE = "reference"
# The stages of ``checked_graph``; converting to float16 or quantizing adds one.
_STAGES = 4


def export(target: Target, feeds: Feeds) -> list[Parity]:
    """Export every component of a checkpoint; return each graph's difference from torch.

    Finished graphs of this repository, or of another place, are reused. ``feeds`` are the
    components' inputs while pictures were drawn, on which float16 graphs are checked. Raises
    CheckpointError, GraphError, ParityError or PrecisionError; the repository then has no manifest.
    """
    target.folder.mkdir(parents=True, exist_ok=True)
    (target.folder / FILE).unlink(missing_ok=True)
    family = target.checkpoint.family
    tokens = {encoder.name: token_length(target.checkpoint, encoder) for encoder in family.encoders}
    rows: list[Parity] = []
    for component in family.components:
        kept = records.read(target, component)
        if kept is None:
            kept = _export_component(target, component, tokens, feeds)
        else:
            log.info("%s: already finished", component.name)
        rows += kept
    write_tokenizers(target.checkpoint, target.folder / TOKENIZERS)
    parity_report.write(rows, target.folder)
    manifest = _manifest(target, tokens)
    for component in family.components:
        _write_config(target, manifest, component)
    write_manifest(manifest, target.folder)
    return rows


def _export_component(
    target: Target, component: Component, tokens: Mapping[str, int], feeds: Feeds
) -> list[Parity]:
    """Reuse or export one component; its version folder is complete or absent."""
    start = time.monotonic()
    with replaced(target.version(component)) as folder:
        rows = records.take(target, component, folder)
        told = "reused from an equal graph" if rows else "done"
        if rows is None:
            records.take_trace(target, component, folder)
            rows = _made(target, component, tokens, feeds, folder)
            # Without inputs of a request there is nothing to measure.
            given = feeds.get(component.name)
            count = threads.choose(folder, given[0]) if given else threads.ALL
            records.write(target, component, rows, folder, count)
    records.keep(target.version(component))
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
            distance = halve(
                reference / GRAPH, target.keep(component), feeds[component.name], folder
            )
            log.info("%s: float16, %.1e from float32 (relative)", component.name, distance)
        return single


def _quantize(target: Target, graph: Path, feeds: Sequence[Feed], folder: Path) -> None:
    # These imports take seconds.
    from stepwise.export.quantize import artifacts

    assert target.quantization is not None
    artifacts.write(target, target.quantization, graph, feeds[0], folder)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder for the graph that another one is converted from, removed after the block."""
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
    """Write a component's float32 graph and compare it with torch.

    The torch module is freed before the graph runs. ``trace`` and ``narrow`` are as in
    ``write_graph``.
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
    others = untraced(checkpoint.family, checkpoint.sides, scale, length)
    examples = parity.expect(module, component, others)
    del module
    gc.collect()
    stage("comparing")
    rows = parity.compare(component, path, examples)
    parity.check(rows)
    return rows


def _write_config(target: Target, manifest: Manifest, component: Component) -> None:
    largest = largest_sizes(target, manifest, component)
    graph, count = target.version(component) / GRAPH, records.threads(target, component)
    config = graph_config(component, target.name, graph, largest, count)
    (target.model(component) / triton_configs.FILE).write_text(triton_configs.render(config))


def _manifest(target: Target, tokens: dict[str, int]) -> Manifest:
    components = target.checkpoint.family.components
    return replace(
        describe(target.checkpoint, target.name, tokens, chat_templates(target.checkpoint)),
        precision=target.precision,
        graphs={c.name: graph_digest(target.version(c)) for c in components},
        source=export_key(target),
        quantized=target.quantized,
        formats={
            c.name: graph_format(c, target.precision, target.is_quantized(c)) for c in components
        },
    )
