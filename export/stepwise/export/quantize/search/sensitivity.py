"""Measures the loss of quantizing one layer alone, its weights or its activations (section 3.3).

A content layer is judged by the structural similarity of pictures, a quality layer by the
signal-to-noise ratio of the UNet's predictions. Every score is written as soon as it is known, so
that an interrupted run resumes.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from stepwise.export.options import FLOAT_BITS
from stepwise.export.quantize.calibration.activation_ranges import Activations, Clipping
from stepwise.export.quantize.calibration.bos_token import FirstToken
from stepwise.export.quantize.calibration.sampling import Feed, Study, batches, draw
from stepwise.export.quantize.layers import Group, Layer
from stepwise.export.quantize.plan import Entry
from stepwise.export.quantize.search.fake_quant import Measured, quantized
from stepwise.export.quantize.search.metrics import noise, ssim
from stepwise.export.quantize.search.runtimes import Runtime

# The noise that stands for none, so that decibels are finite.
_SILENCE = 1e-12


@dataclass(frozen=True)
class Trial:
    """A layer with ``bits`` for its weights or, with a ``clipping``, for its activations."""

    layer: str
    group: Group
    bits: int
    clipping: Clipping | None = None

    @property
    def entry(self) -> Entry:
        """The trial as an entry of a plan."""
        if self.clipping is None:
            return Entry(self.bits, FLOAT_BITS)
        return Entry(FLOAT_BITS, self.bits)


# Similarity, at most 1, of content layers; decibels of quality layers.
Scores = Mapping[Trial, float]


def loss(group: Group, score: float) -> float:
    """The loss to sum over layers: dissimilarity, or the energy of noise over the signal's."""
    return 1 - score if group is Group.CONTENT else float(10 ** (-score / 10))


def trials(layers: Iterable[Layer], runtime: Runtime) -> Iterator[Trial]:
    """Every quantization of each layer that a runtime supports."""
    for layer in layers:
        allowed = runtime.bits(layer)
        for bits in sorted(allowed.keys() - {FLOAT_BITS}):
            yield Trial(layer.name, layer.group, bits)
        for bits in sorted(set(allowed.values()) - {FLOAT_BITS}):
            for clipping in Clipping:
                yield Trial(layer.name, layer.group, bits, clipping)


class Judge:
    """Compares a UNet with its state when the judge was made."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.feeds: list[Feed] = []
        predictions, latents = [], []

        def predict(feed: Feed) -> npt.NDArray[np.float32]:
            self.feeds.append(feed)
            predictions.append(study.predict(feed))
            return predictions[-1]

        for part in batches(study.requests):
            latents.append(study.decode(draw(predict, part)))
        self.pictures, self.predictions = np.concatenate(latents), np.concatenate(predictions)

    def score(self, group: Group) -> float:
        """Similarity of pictures for content layers, decibels of predictions for quality layers."""
        if group is Group.CONTENT:
            return ssim(self.study.pictures(), self.pictures)
        predictions = np.concatenate([self.study.predict(feed) for feed in self.feeds])
        return float(-10 * np.log10(noise(predictions, self.predictions) + _SILENCE))


def measure(
    study: Study,
    layers: Sequence[Layer],
    activations: Mapping[Clipping, Activations],
    first: FirstToken,
    runtime: Runtime,
    path: Path,
) -> Scores:
    """The score of every trial; those in ``path`` are not measured again. Progress is shown."""
    known = _read(path)
    due = [trial for trial in trials(layers, runtime) if trial not in known]
    if not due:
        return known
    by_name, judge = {layer.name: layer for layer in layers}, Judge(study)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for trial in tqdm(due, "measuring layers", unit="trial"):
            ranges = activations[trial.clipping or Clipping.MINMAX]
            entries, layer = {trial.layer: trial.entry}, by_name[trial.layer]
            with quantized(study.unet, [layer], entries, Measured(ranges, first), runtime.rounding):
                known[trial] = judge.score(trial.group)
            file.write(_row(trial, known[trial]))
            file.flush()
    return known


def borrow(source: Path, folder: Path, holds: Callable[[Trial], bool]) -> None:
    """Copy the scores of trials that ``holds`` accepts from one folder to another.

    Existing files in ``folder`` are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in source.glob("*.jsonl"):
        if not (folder / path.name).exists():
            rows = [_row(*score) for score in _read(path).items() if holds(score[0])]
            (folder / path.name).write_text("".join(rows))


def _row(trial: Trial, score: float) -> str:
    return json.dumps({**asdict(trial), "score": score}) + "\n"


def _read(path: Path) -> dict[Trial, float]:
    """The scores in a file; a last line that was not finished is removed."""
    if not path.is_file():
        return {}
    whole, _, rest = path.read_text().rpartition("\n")
    if rest:
        path.write_text(whole + "\n" if whole else "")
    return dict(map(_parse, whole.splitlines()))


def _parse(line: str) -> tuple[Trial, float]:
    row = json.loads(line)
    clipping = row["clipping"] and Clipping(row["clipping"])
    return Trial(row["layer"], Group(row["group"]), row["bits"], clipping), row["score"]
