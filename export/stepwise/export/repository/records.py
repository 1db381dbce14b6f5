"""Records of finished graphs, each next to its graph.

A folder appears as a whole, so there is a record if and only if the graph is finished. A graph with
the same key is reused instead of exported again, from another pipeline in the repository or from
the folder that ``STEPWISE_GRAPHS`` names.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stepwise.description.files import read_json
from stepwise.description.graph_files import GRAPH, graph_digest
from stepwise.description.manifest import Manifest
from stepwise.description.spec import Component
from stepwise.export.onnx import parity_report
from stepwise.export.onnx.graph_files import TRACE
from stepwise.export.onnx.parity_report import Parity
from stepwise.export.repository import triton_configs
from stepwise.export.repository.keys import component_key, export_key, trace_key
from stepwise.export.repository.layout import Target

FILE = "export.json"
# The environment variable that names a folder in which finished graphs are kept by their keys.
KEPT = "STEPWISE_GRAPHS"


@dataclass(frozen=True)
class Finished:
    """A component's graph: the key of all its sources, its digest, and its files.

    ``trace`` is the key of its trace. ``threads`` run the graph on a CPU, all cores if 0.
    """

    key: str
    trace: str
    graph: str
    files: list[str]
    threads: int = 0


def write(
    target: Target, component: Component, rows: Iterable[Parity], folder: Path, threads: int
) -> None:
    """Record the graph in ``folder``, its difference from torch, and the other files."""
    parity_report.write(rows, folder)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    keys = (component_key(target, component), trace_key(target, component))
    record = Finished(*keys, graph_digest(folder), files, threads)
    (folder / FILE).write_text(json.dumps(asdict(record), indent=2) + "\n")


def read(target: Target, component: Component) -> list[Parity] | None:
    """A finished graph's difference from torch; None if an export would make another graph."""
    folder = target.version(component)
    record = _record(folder, component_key(target, component))
    return None if record is None else parity_report.read(folder)


def threads(target: Target, component: Component) -> int:
    """How many threads run a finished graph on a CPU, all cores if 0."""
    return _read(target.version(component)).threads


def is_finished(target: Target) -> bool:
    """Whether the target holds a whole export that is up to date."""
    try:
        manifest = Manifest.read(target.folder)
        parity_report.read(target.folder)
    except (OSError, ValueError, TypeError, KeyError):
        return False
    components = target.checkpoint.family.components
    files = [*target.tokenizers.values()]
    files += [target.model(component) / triton_configs.FILE for component in components]
    return (
        manifest.source == export_key(target)
        and all(path.is_file() for path in files)
        and all(_is_whole(target, manifest, component) for component in components)
    )


def _is_whole(target: Target, manifest: Manifest, component: Component) -> bool:
    folder = target.version(component)
    return folder.is_dir() and graph_digest(folder) == manifest.graphs.get(component.name)


def take(target: Target, component: Component, folder: Path) -> list[Parity] | None:
    """Fill ``folder`` with a finished graph that has the component's key, if there is one.

    Returns its difference from torch, or None. Weights are hard links where the file system has
    them.
    """
    key = component_key(target, component)
    for found in _places(target, key):
        record = _record(found, key)
        if record is not None:
            for name in (*record.files, FILE):
                _copy(found / name, folder / name)
            return parity_report.read(folder)
    return None


def take_trace(target: Target, component: Component, folder: Path) -> None:
    """Fill ``folder`` with the trace of a component with the same configuration, if there is one.

    Fine-tunes of one model share a trace, in any precision.
    """
    key = trace_key(target, component)
    for found in _places(target, key):
        with suppress(OSError, ValueError, TypeError):
            if _read(found).trace == key:
                _copy(found / TRACE, folder / TRACE)
                return


def keep(folder: Path) -> None:
    """Keep a finished graph for other exports, if ``STEPWISE_GRAPHS`` names a folder."""
    record = _read(folder)
    for key in (record.key, record.trace):
        place = _kept(key)
        if place is not None and not place.exists():
            _fill(place, folder, record)


def _fill(place: Path, folder: Path, record: Finished) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=place.parent) as scratch:
        partial = Path(scratch) / place.name
        for name in (*record.files, FILE):
            _copy(folder / name, partial / name)
        # Another export may have written the same graph first.
        with suppress(OSError):
            partial.rename(place)


def _places(target: Target, key: str) -> Iterator[Path]:
    place = _kept(key)
    if place is not None:
        yield place
    for path in sorted(target.repository.glob(f"*/1/{FILE}")):
        yield path.parent


def _kept(key: str) -> Path | None:
    folder = os.environ.get(KEPT)
    return Path(folder) / key if folder else None


def _record(folder: Path, key: str) -> Finished | None:
    """The record of a graph with this key; None without one, or if a file is missing or damaged."""
    try:
        record = _read(folder)
        if record.key != key or record.graph != graph_digest(folder):
            return None
        parity_report.read(folder)
    except (OSError, ValueError, TypeError):
        return None
    return record if all((folder / name).is_file() for name in record.files) else None


def _read(folder: Path) -> Finished:
    given: dict[str, Any] = read_json(folder / FILE)
    return Finished(**given)


def _copy(source: Path, to: Path) -> None:
    """Link a graph or its weights, which are never written to; copy files that people may edit."""
    to.parent.mkdir(parents=True, exist_ok=True)
    if source.name.startswith((GRAPH, TRACE)):
        try:
            os.link(source, to)
        except OSError:
            shutil.copy2(source, to)
    else:
        shutil.copy2(source, to)
