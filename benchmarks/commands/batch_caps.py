"""Finds the best number of rows per denoiser call: the bare graph's speed by resolution and rows.

More rows make each row cheaper until the cores are busy. Beyond that, they only delay the steps of
every request in the batch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import unbatched_repository
from benchmarks.harness.denoiser_only import Bare
from benchmarks.harness.workload import Resolution, resolutions
from stepwise.families import FAMILIES

ROWS = (1, 2, 4, 8, 16)
# The suggested cap is the fewest rows that reach this share of the best speed.
ENOUGH = 0.95
CALLS = 15


def measure(
    repository: Path, name: str, *, write: bool = False, calls: int = CALLS
) -> dict[str, Any]:
    """Milliseconds per call, rows per second and the suggested cap, by resolution.

    ``write`` also writes the caps to the file that the server reads.
    """
    bare = Bare(repository, name)
    rows = [n for n in ROWS if n <= FAMILIES[bare.manifest.family].max_rows]
    sizes = list(resolutions(bare.manifest.sides).values())
    spent = bare.median([(size, n) for size in sizes for n in rows], calls)
    by_size = {size: {n: spent[size, n] for n in rows} for size in sizes}
    caps = {size: suggest(milliseconds) for size, milliseconds in by_size.items()}
    _print(by_size, caps)
    if write:
        print(f"written to {unbatched_repository.write(repository / name, caps)}")
    return {f"{width}x{height}": _figures(by_size[height, width], cap)
            for (height, width), cap in caps.items()}  # fmt: skip


def suggest(milliseconds: Mapping[int, float]) -> int:
    """The fewest rows that reach ``ENOUGH`` times the best rows per second."""
    speeds = {rows: rows / spent for rows, spent in milliseconds.items()}
    return min(rows for rows, speed in speeds.items() if speed >= ENOUGH * max(speeds.values()))


def _figures(milliseconds: Mapping[int, float], cap: int) -> dict[str, Any]:
    return {
        "milliseconds": {str(rows): round(spent, 2) for rows, spent in milliseconds.items()},
        "rows_per_second": {
            str(rows): round(1000 * rows / spent, 1) for rows, spent in milliseconds.items()
        },
        "cap": cap,
    }


def _print(table: Mapping[Resolution, Mapping[int, float]], caps: Mapping[Resolution, int]) -> None:
    rows = next(iter(table.values()))
    print("".join(["rows per second, by rows ", *(f"{n:9}" for n in rows), "      cap"]))
    for size, milliseconds in table.items():
        speeds = [f"{1000 * n / spent:9.1f}" for n, spent in milliseconds.items()]
        print("".join([f"{size[1]:4} x {size[0]:<18}", *speeds, f"{caps[size]:9}"]))
