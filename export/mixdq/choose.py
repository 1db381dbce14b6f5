"""The plan within a budget whose pictures are the best, of all divisions between the two groups."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from tqdm import tqdm

from export.errors import QuantizationError
from export.mixdq.activations import Clipping, activations
from export.mixdq.allocate import Choice, sweep
from export.mixdq.fake import Measured, quantized
from export.mixdq.first_token import FirstToken
from export.mixdq.layers import Group, Layer
from export.mixdq.metrics import psnr
from export.mixdq.plan import FLOAT_BITS, Entry
from export.mixdq.recording import Recording
from export.mixdq.runtimes import Runtime
from export.mixdq.sensitivity import Scores, Trial, loss
from export.mixdq.study import Study

log = logging.getLogger(__name__)

# How the budget is divided between content and quality layers is tried in so many ways.
DIVISIONS = 9


def choose(
    study: Study,
    layers: Sequence[Layer],
    scores: Scores,
    found: tuple[Recording, FirstToken],
    runtime: Runtime,
    budget: int,
    protected: Iterable[str] = (),
) -> dict[str, Entry]:
    """An entry for each layer, all weights together in at most ``budget`` bytes.

    ``protected`` are names, in which ``*`` is any text, of layers that are left as they are. Each
    division's plan draws the study's pictures; the one that is nearest to the UNet's own is taken.
    Raises QuantizationError if no plan fits or a protected name is none.
    """
    kept = _protected(layers, protected)
    groups = {
        group: {
            layer.name: tuple(_choices(layer, scores, runtime, layer.name in kept))
            for layer in layers
            if layer.group is group
        }
        for group in Group
    }
    plans = [
        {
            layer.name: _entry(layer, allocation[layer.name].bits, scores, runtime)
            for layer in layers
        }
        for allocation in sweep(groups, budget, DIVISIONS)
    ]
    different = [plan for place, plan in enumerate(plans) if plan not in plans[:place]]
    references = study.pictures()
    closeness = []
    for plan in tqdm(different, "comparing plans", unit="plan"):
        with quantized(study.unet, layers, plan, measured(layers, plan, *found), runtime.rounding):
            closeness.append(psnr(study.pictures(), references))
    best = max(range(len(different)), key=closeness.__getitem__)
    log.info("%d plans, of which the best has %.1f dB", len(different), closeness[best])
    return different[best]


def measured(
    layers: Sequence[Layer], plan: dict[str, Entry], recording: Recording, first: FirstToken
) -> Measured:
    """What calibration has found, with ranges as a plan takes them."""
    clippings = {name: entry.clipping for name, entry in plan.items()}
    return Measured(activations(recording, layers, clippings), first)


def _protected(layers: Sequence[Layer], patterns: Iterable[str]) -> set[str]:
    kept: set[str] = set()
    for pattern in patterns:
        names = {layer.name for layer in layers if fnmatchcase(layer.name, pattern)}
        if not names:
            raise QuantizationError(
                f"no layer is called {pattern!r}, which is to be protected; names are like "
                f"{layers[0].name!r}, and * stands for any text"
            )
        kept |= names
    return kept


def _choices(layer: Layer, scores: Scores, runtime: Runtime, kept: bool) -> Iterator[Choice]:
    for bits in [FLOAT_BITS] if kept else runtime.bits(layer):
        entry = _entry(layer, bits, scores, runtime)
        known = [s for s in (entry.weight_score, entry.activation_score) if s is not None]
        yield Choice(
            bits, runtime.size(layer, bits), -sum(loss(layer.group, score) for score in known)
        )


def _entry(layer: Layer, bits: int, scores: Scores, runtime: Runtime) -> Entry:
    """A layer at ``bits``, its activations clipped as suits it best; 16 bits have no scores."""
    due = runtime.bits(layer)[bits]
    tried = {clipping: Trial(layer.name, layer.group, due, clipping) for clipping in Clipping}
    found = {clipping: scores[trial] for clipping, trial in tried.items() if trial in scores}
    clipping = max(found, key=found.__getitem__, default=Clipping.MINMAX)
    weight_score = scores.get(Trial(layer.name, layer.group, bits))
    return Entry(bits, due, weight_score, found.get(clipping), clipping)
