"""The differences between graphs and torch, as JSON and as a table."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

from stepwise.description.files import read_json
from stepwise.description.vae_caches import output_name

FILE = "parity.json"
_CACHE = output_name(0).rstrip("0")


@dataclass(frozen=True)
class Parity:
    """The difference between a graph and torch in one output at one shape.

    ``difference`` is the greatest absolute difference (in levels for pictures), ``relative`` is the
    norm of the difference over that of torch's output, ``changed`` the share of values that are not
    equal.
    """

    component: str
    output: str
    shape: tuple[int, ...]
    difference: float
    relative: float
    changed: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the greatest difference is within the tolerance; NaN is not."""
        return self.difference <= self.tolerance


def write(rows: Iterable[Parity], folder: Path) -> None:
    """Write ``parity.json`` into ``folder``."""
    (folder / FILE).write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


def read(folder: Path) -> list[Parity]:
    """Read ``parity.json`` from ``folder``."""
    fields = read_json(folder / FILE)
    return [Parity(**{**row, "shape": tuple(row["shape"])}) for row in fields]


def summary(rows: Sequence[Parity]) -> str:
    """One line for a terminal: whether all outputs pass, and the one nearest to its tolerance."""
    failed = [row for row in rows if not row.ok]
    if failed:
        return f"{len(failed)} of {len(rows)} outputs are not within their tolerances of torch"
    components = dict.fromkeys(row.component for row in rows)
    worst = max(rows, key=lambda row: row.difference / row.tolerance)
    return (
        f"all {len(components)} components within tolerance of torch; nearest to its limit is "
        f"{worst.component}, {worst.difference:.1e} where {worst.tolerance:g} is allowed"
    )


def table(rows: Iterable[Parity]) -> str:
    """The rows as a table for a terminal; of all caches at one size, only the worst."""
    titles = ("component", "output", "shape", "max diff", "allowed", "relative", "changed")
    layout = "{:<12} {:<14} {:<19} {:>9} {:>8} {:>9} {:>8}"
    lines = [layout.format(*titles)]
    for row in _shown(rows):
        shape = " x ".join(map(str, row.shape))
        difference, relative = f"{row.difference:.2e}", f"{row.relative:.2e}"
        allowed, changed = f"{row.tolerance:g}", f"{row.changed:.2%}"
        lines.append(
            layout.format(row.component, row.output, shape, difference, allowed, relative, changed)
        )
    return "\n".join(lines)


def _shown(rows: Iterable[Parity]) -> Iterator[Parity]:
    for kind, group in groupby(rows, key=lambda row: row.output.rstrip("0123456789")):
        if kind == _CACHE:
            yield max(group, key=lambda row: row.relative)
        else:
            yield from group
