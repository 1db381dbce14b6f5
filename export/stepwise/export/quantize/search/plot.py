"""Plots the sensitivity of each layer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from stepwise.export.quantize.layers import Group, Layer
from stepwise.export.quantize.search.sensitivity import Scores, Trial, loss

_TITLES = {
    Group.CONTENT: "content layers: 1 - SSIM of pictures",
    Group.QUALITY: "quality layers: noise over signal of predictions",
}
# The least loss on the logarithmic axis; smaller ones are drawn there.
_LEAST = 1e-10


def write(layers: Sequence[Layer], scores: Scores, path: Path) -> None:
    """Draw the loss of quantizing each layer alone, one panel for each group, as a PNG."""
    with matplotlib.rc_context({"font.size": 8}):
        figure = Figure(figsize=(12, 8), dpi=110, layout="constrained")
        for axes, group in zip(figure.subplots(len(Group), 1), Group, strict=True):
            _panel(axes, [layer.name for layer in layers if layer.group is group], scores, group)
        figure.savefig(path)


def _panel(axes: Any, names: Sequence[str], scores: Scores, group: Group) -> None:
    places = {name: place for place, name in enumerate(names)}
    series: dict[str, list[tuple[int, float]]] = {}
    for trial, score in scores.items():
        if trial.group is group and trial.layer in places:
            point = places[trial.layer], max(loss(group, score), _LEAST)
            series.setdefault(_label(trial), []).append(point)
    for label, points in series.items():
        axes.plot(*zip(*points, strict=True), ".", label=label)
    axes.set_yscale("log")
    axes.set_title(_TITLES[group])
    axes.set_xlabel("layer, in the order of the UNet's modules")
    axes.legend(loc="upper left", ncols=len(series) or 1)
    for place, name in _worst(names, scores, group):
        axes.annotate(name, (place, axes.get_ylim()[1]), rotation=90, va="top", fontsize=6)


def _worst(names: Sequence[str], scores: Scores, group: Group) -> list[tuple[int, str]]:
    """The five layers with the greatest loss, with their places."""
    losses = dict.fromkeys(names, 0.0)
    for trial, score in scores.items():
        if trial.group is group and trial.layer in losses:
            losses[trial.layer] = max(losses[trial.layer], loss(group, score))
    worst = sorted(names, key=losses.__getitem__)[-5:]
    return [(names.index(name), name) for name in worst]


def _label(trial: Trial) -> str:
    if trial.clipping is None:
        return f"{trial.bits}-bit weights"
    return f"{trial.bits}-bit activations, {trial.clipping}"
