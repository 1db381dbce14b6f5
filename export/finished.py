"""What is known of a component whose graph is whole: a file beside the graph, and in its folder.

The folder appears as a whole, so there is a record if and only if the graph is finished.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from export import report
from export.report import Parity
from export.target import Target, graph_digest
from pipelines.spec import Component

FILE = "export.json"


@dataclass(frozen=True)
class Finished:
    """A component's graph: the digest of its checkpoint and exporter, its precision, its digest.

    ``quantized`` is the digest of what it was quantized to, "" if it was not.
    """

    source: str
    precision: str
    quantized: str
    graph: str


def write(
    target: Target, source: str, component: Component, rows: Iterable[Parity], folder: Path
) -> None:
    """Record the graph in ``folder``, and how far it is from torch."""
    record = _due(target, source, component, folder)
    (folder / FILE).write_text(json.dumps(asdict(record), indent=2) + "\n")
    report.write(rows, folder)


def read(target: Target, source: str, component: Component) -> list[Parity] | None:
    """How far a finished graph is from torch; None if it is not what would be exported."""
    folder = target.version(component)
    try:
        got = json.loads((folder / FILE).read_text())
        rows = report.read(folder)
    except (OSError, ValueError, TypeError):
        return None
    return rows if got == asdict(_due(target, source, component, folder)) else None


def _due(target: Target, source: str, component: Component, folder: Path) -> Finished:
    quantized = target.quantized if target.is_quantized(component) else ""
    return Finished(source, target.precision, quantized, graph_digest(folder))
