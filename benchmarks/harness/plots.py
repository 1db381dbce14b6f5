"""Plots of the results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot

_COLOURS = {"in_flight": "#2a6f97", "cap_1": "#c9a227"}
_NAMES = {"in_flight": "in flight", "cap_1": "one at a time"}


def load(
    closed: Mapping[str, Mapping[str, Any]],
    waits: Mapping[str, Mapping[str, Sequence[float]]],
    path: Path,
) -> None:
    """Plot the closed loop's pictures per second and the open loop's latencies in seconds.

    Both are by workload.
    """
    figure, (first, *others) = pyplot.subplots(
        1, 1 + len(waits), figsize=(5 * (1 + len(waits)), 4), layout="constrained"
    )
    _bars(first, closed)
    for axes, (workload, seconds) in zip(others, waits.items(), strict=True):
        _cumulative(axes, seconds)
        axes.set_title(f"open loop, {workload} requests: the same arrivals")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _bars(axes: Any, closed: Mapping[str, Mapping[str, Any]]) -> None:
    places, width = np.arange(len(closed)), 0.38
    for side, way in enumerate(_COLOURS):
        rates = [run["pictures_per_second"][way] for run in closed.values()]
        bars = axes.bar(
            places + width * (side - 0.5), rates, width, color=_COLOURS[way], label=_NAMES[way]
        )
        axes.bar_label(bars, fmt="%.2f", label_type="center")
    bare = [
        run["pictures_per_second"]["cap_1"] * run["gain_of_bare_graph"] for run in closed.values()
    ]
    axes.scatter(
        places - width / 2, bare, marker="_", s=900, color="black", label="bare graph's own gain"
    )
    axes.set_xticks(places, [f"{name} requests" for name in closed])
    axes.set_ylabel("pictures per second")
    axes.set_title("closed loop")
    axes.margins(y=0.25)
    axes.legend(loc="upper right", fontsize=8)


def _cumulative(axes: Any, waits: Mapping[str, Sequence[float]]) -> None:
    for way, seconds in waits.items():
        shares = np.arange(1, len(seconds) + 1) / len(seconds)
        axes.plot(np.sort(seconds), 100 * shares, color=_COLOURS[way], label=_NAMES[way])
    for percent in (50, 99):
        axes.axhline(percent, color="0.8", linewidth=0.8, zorder=0)
    axes.set_xscale("log")
    axes.set_xlabel("seconds from the scheduled arrival to the picture")
    axes.set_ylabel("percent of requests")
    axes.legend(loc="lower right", fontsize=8)
