"""Writes what a checkpoint adds to a model repository: graphs, their configs, tokenizers, manifest.

The manifest comes last: a repository without it was not finished.
"""

import logging
import time
from dataclasses import replace
from pathlib import Path

from export import configs, parity, report
from export.components import Exportable
from export.graph import write_graph
from export.graph_config import graph_config
from export.loading import load
from export.report import Parity
from export.shapes import traced, untraced
from export.target import Target, describe, graph_digest, replaced, write_manifest
from export.tokenizer import token_length, write_tokenizer
from pipelines.manifest import FILE, TOKENIZERS
from pipelines.spec import Component

log = logging.getLogger(__name__)


def export(target: Target, source: str) -> list[Parity]:
    """Export every component of a checkpoint in float32; return how far each graph is from torch.

    ``source`` is the digest that the manifest will carry. Raises CheckpointError, GraphError or
    ParityError; the repository then has no manifest.
    """
    target.prepare.mkdir(parents=True, exist_ok=True)
    (target.prepare / FILE).unlink(missing_ok=True)
    pipeline = target.checkpoint.pipeline
    tokens = {
        encoder.name: token_length(target.checkpoint, encoder) for encoder in pipeline.encoders
    }
    rows: list[Parity] = []
    for component in pipeline.components:
        rows += _export_component(target, component, tokens.get(component.name, 0))
    _write_tokenizers(target, tokens)
    report.write(rows, target.prepare)
    _write_manifest(target, source, tokens)
    return rows


def _export_component(target: Target, component: Component, tokens: int) -> list[Parity]:
    """Load, write and check one component; its model folder is complete or has no version."""
    start = time.monotonic()
    module = load(target.checkpoint, component)
    count = sum(parameter.numel() for parameter in module.parameters())
    log.info("%s: exporting %.1f million parameters", component.name, count / 1e6)
    with replaced(target.version(component)) as folder:
        rows = _checked_graph(target, component, module, tokens, folder)
    log.info("%s: done in %.1f s", component.name, time.monotonic() - start)
    return rows


def _checked_graph(
    target: Target, component: Component, module: Exportable, tokens: int, folder: Path
) -> list[Parity]:
    checkpoint = target.checkpoint
    sides, scale = checkpoint.sides, checkpoint.vae_scale
    path = write_graph(module, component, traced(sides, scale, tokens), folder)
    sizes = untraced(checkpoint.pipeline, sides, scale, tokens)
    rows = parity.compare(module, component, path, sizes)
    parity.check(rows)
    text = configs.render(graph_config(component, target.name, path))
    (target.model(component) / configs.FILE).write_text(text)
    return rows


def _write_tokenizers(target: Target, tokens: dict[str, int]) -> None:
    (target.prepare / TOKENIZERS).mkdir(exist_ok=True)
    for encoder in target.checkpoint.pipeline.encoders:
        if encoder.name in target.tokenizers:
            folder = target.checkpoint.folder / encoder.tokenizer
            write_tokenizer(folder, tokens[encoder.name], target.tokenizers[encoder.name])


def _write_manifest(target: Target, source: str, tokens: dict[str, int]) -> None:
    components = target.checkpoint.pipeline.components
    manifest = replace(
        describe(target.checkpoint, target.name, tokens),
        graphs={c.name: graph_digest(target.version(c)) for c in components},
        source=source,
    )
    write_manifest(manifest, target.prepare)
