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

from export import configs, finished, parity, report
from export.graph import write_graph
from export.graph_config import graph_config
from export.half import halve
from export.loading import load
from export.report import Parity
from export.running import Feed, Feeds
from export.shapes import traced, untraced
from export.target import GRAPH, Target, describe, graph_digest, replaced, write_manifest
from export.tokenizer import chat_templates, token_length, write_tokenizers
from pipelines.manifest import FILE, TOKENIZERS
from pipelines.spec import Component

log = logging.getLogger(__name__)

_REFERENCE = "reference"


def export(target: Target, source: str, feeds: Feeds) -> list[Parity]:
    """Export every component of a checkpoint; return how far each graph is from torch.

    ``source`` is the digest that the manifest will carry; what was finished from the same is kept.
    ``feeds`` are what the components are given while pictures are drawn, which float16 is held to.
    Raises CheckpointError, GraphError, ParityError or PrecisionError; the repository then has no
    manifest.
    """
    target.prepare.mkdir(parents=True, exist_ok=True)
    (target.prepare / FILE).unlink(missing_ok=True)
    pipeline = target.checkpoint.pipeline
    tokens = {
        encoder.name: token_length(target.checkpoint, encoder) for encoder in pipeline.encoders
    }
    rows: list[Parity] = []
    for component in pipeline.components:
        kept = finished.read(target, source, component)
        if kept is None:
            kept = _export_component(target, source, component, tokens, feeds)
        else:
            log.info("%s: finished before", component.name)
        rows += kept
    write_tokenizers(target.checkpoint, target.prepare / TOKENIZERS)
    report.write(rows, target.prepare)
    _write_manifest(target, source, tokens)
    return rows


def _export_component(
    target: Target, source: str, component: Component, tokens: Mapping[str, int], feeds: Feeds
) -> list[Parity]:
    """Load, write and check one component; its model folder is complete or has no version."""
    start = time.monotonic()
    with replaced(target.version(component)) as folder:
        if target.is_quantized(component):
            rows = quantized_graph(target, component, tokens, feeds[component.name], folder)
        elif target.precision == "fp32":
            rows = checked_graph(target, component, tokens, folder)
        else:
            rows = half_graph(target, component, tokens, feeds[component.name], folder)
        text = configs.render(graph_config(component, target.name, folder / GRAPH))
        (target.model(component) / configs.FILE).write_text(text)
        finished.write(target, source, component, rows, folder)
    log.info("%s: done in %.1f s", component.name, time.monotonic() - start)
    return rows


def half_graph(
    target: Target,
    component: Component,
    tokens: Mapping[str, int],
    feeds: Sequence[Feed],
    folder: Path,
) -> list[Parity]:
    """Write a float16 graph by way of a float32 one, which has the weights as they are stored."""
    with scratch(folder) as reference:
        rows = checked_graph(target, component, tokens, reference, narrow=True)
        distance = halve(reference / GRAPH, component.name, feeds, folder)
    log.info("%s: float16, %.1e from float32 (relative)", component.name, distance)
    return rows


def quantized_graph(
    target: Target,
    component: Component,
    tokens: Mapping[str, int],
    feeds: Sequence[Feed],
    folder: Path,
) -> list[Parity]:
    """Write a quantized graph by way of a float32 one, which is the one that torch is held to."""
    # What it needs takes seconds to import.
    from export.mixdq import beside

    assert target.quantization is not None
    with scratch(folder) as reference:
        rows = checked_graph(target, component, tokens, reference, narrow=True)
        beside.write(target, target.quantization, reference / GRAPH, feeds[0], folder)
    return rows


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
    *,
    narrow: bool = False,
) -> list[Parity]:
    """Write a component's float32 graph and compare it with torch, which is freed before."""
    checkpoint, length = target.checkpoint, tokens.get(component.name, 0)
    sides, scale = checkpoint.sides, checkpoint.vae_scale
    module = load(checkpoint, component)
    count = sum(parameter.numel() for parameter in module.parameters())
    log.info("%s: exporting %.1f million parameters", component.name, count / 1e6)
    path = write_graph(module, component, traced(sides, scale, length), folder, narrow=narrow)
    examples = parity.expect(module, component, untraced(checkpoint.pipeline, sides, scale, length))
    del module
    gc.collect()
    rows = parity.compare(component, path, examples)
    parity.check(rows)
    return rows


def _write_manifest(target: Target, source: str, tokens: dict[str, int]) -> None:
    components = target.checkpoint.pipeline.components
    manifest = replace(
        describe(target.checkpoint, target.name, tokens, chat_templates(target.checkpoint)),
        precision=target.precision,
        graphs={c.name: graph_digest(target.version(c)) for c in components},
        source=source,
        quantized=target.quantized,
    )
    write_manifest(manifest, target.prepare)
