"""Builds the engines of an exported pipeline, writes them next to their graphs and records them.

``engines.json`` in the folder of ``<name>`` has one record per engine. ``stepwise check``
compares them with its machine.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stepwise.description import formats
from stepwise.description.files import read_json
from stepwise.description.graph_files import GRAPH
from stepwise.description.manifest import Manifest
from stepwise.description.spec import Component
from stepwise.export.onnx.graph_files import ENGINE_GRAPH
from stepwise.export.repository import triton_configs
from stepwise.export.repository.component_config import engine_config
from stepwise.export.repository.layout import Target
from stepwise.export.tensorrt.builder import Built, Layers, build
from stepwise.export.tensorrt.builder_log import Kernel
from stepwise.export.tensorrt.libraries import LIBRARIES, load
from stepwise.export.tensorrt.profiles import Profiles, profiles

log = logging.getLogger(__name__)

FILE = "engines.json"
# Receives the kernels of an engine.
Report = Callable[[Target, Component, Iterable[Kernel]], None]


@dataclass(frozen=True)
class Engine:
    """One built engine.

    ``library`` is the Python module that built it, ``graph`` the digest of its graph, ``file`` its
    path in the repository and ``sha256`` the digest of its content. ``layers`` counts its layers by
    type and datatype. ``format`` is that of ``stepwise.description.formats``.
    """

    format: int
    component: str
    library: str
    version: str
    compute_capability: str
    precision: str
    graph: str
    file: str
    sha256: str
    bytes: int
    seconds: float
    profiles: list[dict[str, dict[str, list[int]]]]
    layers: Layers

    @property
    def half_layers(self) -> int:
        """The number of layers with float16 outputs."""
        return sum(datatypes.get("Half", 0) for datatypes in self.layers.values())

    @property
    def all_layers(self) -> int:
        """The number of layers."""
        return sum(sum(datatypes.values()) for datatypes in self.layers.values())


def unreported(target: Target, component: Component, kernels: Iterable[Kernel]) -> None:
    """Ignores the kernels of an engine."""


def build_engines(
    target: Target, name: str, capability: str, report: Report = unreported
) -> list[Engine]:
    """Build the missing and outdated engines of a finished export; return all of its engines.

    ``name`` is a key of ``LIBRARIES``. Engines of the same graph, library and GPU are kept.
    ``report`` receives the kernels of a quantized component's engine. Raises EngineError.
    """
    manifest = Manifest.read(target.folder)
    engines = []
    for component in target.checkpoint.family.components:
        shapes = profiles(target, manifest, component)
        wanted = _wanted(target, manifest, component, name, capability) | _record_of(shapes)
        engine = _kept(target, wanted)
        if engine is None:
            engine = _built(target, component, name, shapes, wanted, report)
            _add(engine, target.folder)
        engines.append(engine)
    return engines


def read(folder: Path) -> list[Engine]:
    """The records in ``folder``; none without ``engines.json``. Records without a format get 0."""
    path = folder / FILE
    records = read_json(path) if os.path.lexists(path) else []
    return [Engine(**{"format": 0, **fields}) for fields in records]


def _add(engine: Engine, folder: Path) -> None:
    """Record an engine, replacing the record with the same file."""
    others = [other for other in read(folder) if other.file != engine.file]
    fields = [asdict(record) for record in (*others, engine)]
    partial = folder / f"{FILE}.partial"
    partial.write_text(json.dumps(fields, indent=2) + "\n")
    partial.rename(folder / FILE)


def _wanted(
    target: Target, manifest: Manifest, component: Component, name: str, capability: str
) -> dict[str, Any]:
    """The fields of a record that, with the profiles, decide whether an engine is up to date."""
    path = target.version(component) / LIBRARIES[name].file
    return {
        "format": formats.ENGINE,
        "component": component.name,
        "library": LIBRARIES[name].module,
        "version": load(name).__version__,
        "compute_capability": capability,
        "precision": manifest.precision,
        "graph": manifest.graphs[component.name],
        "file": path.relative_to(target.repository).as_posix(),
    }


def _record_of(shapes: Sequence[Profiles]) -> dict[str, Any]:
    return {
        "profiles": [
            {
                name: {end: list(shape) for end, shape in asdict(profile).items()}
                for name, profile in inputs.items()
            }
            for inputs in shapes
        ]
    }


def _kept(target: Target, wanted: Mapping[str, Any]) -> Engine | None:
    """The existing engine, if it is up to date."""
    path = target.repository / wanted["file"]
    for engine in read(target.folder):
        same = all(getattr(engine, key) == value for key, value in wanted.items())
        if same and path.is_file() and _digest(path) == engine.sha256:
            log.info("%s: its engine is reused", engine.component)
            return engine
    return None


def _built(
    target: Target,
    component: Component,
    name: str,
    shapes: Sequence[Profiles],
    wanted: Mapping[str, Any],
    report: Report,
) -> Engine:
    capability, path = wanted["compute_capability"], target.repository / wanted["file"]
    log.info("%s: building its engine for compute capability %s", component.name, capability)
    quantized = target.is_quantized(component)
    graph = target.version(component) / (ENGINE_GRAPH if quantized else GRAPH)
    built = build(name, graph, shapes, capability)
    if quantized:
        report(target, component, built.kernels)
    partial = path.with_suffix(".partial")
    partial.write_bytes(built.plan)
    partial.rename(path)
    if LIBRARIES[name].config:
        _write_config(target, component, LIBRARIES[name].config, built, len(shapes))
    return Engine(
        **wanted,
        sha256=_digest(path),
        bytes=len(built.plan),
        seconds=round(built.seconds, 2),
        layers=built.layers,
    )


def _write_config(
    target: Target, component: Component, config: str, built: Built, profiles: int
) -> None:
    folder = target.model(component) / "configs"
    folder.mkdir(exist_ok=True)
    text = triton_configs.render(engine_config(component, target.name, built.shapes, profiles))
    (folder / f"{config}.pbtxt").write_text(text)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def table(engines: Iterable[Engine]) -> str:
    """The engines as text for a terminal."""
    layout = "{:<12} {:<12} {:<10} {:>5} {:>7} {:>8} {:>9} {:>8}"
    titles = ("component", "library", "version", "GPU", "layers", "float16", "MB", "seconds")
    lines = [layout.format(*titles)]
    for engine in engines:
        numbers = (engine.all_layers, engine.half_layers)
        size, seconds = f"{engine.bytes / 1e6:.1f}", f"{engine.seconds:.1f}"
        heads = (engine.component, engine.library, engine.version, engine.compute_capability)
        lines.append(layout.format(*heads, *numbers, size, seconds))
    return "\n".join(lines)
