"""Chooses the plan with the best pictures within a budget, from several divisions of it."""

import logging
from collections.abc import Iterable, Sequence, Set
from fnmatch import fnmatchcase

from tqdm import tqdm

from stepwise.export.errors import QuantizationError
from stepwise.export.options import FLOAT_BITS
from stepwise.export.quantize.calibration.activation_ranges import Clipping, activations
from stepwise.export.quantize.calibration.bos_token import FirstToken
from stepwise.export.quantize.calibration.observers import Recording
from stepwise.export.quantize.calibration.sampling import Study
from stepwise.export.quantize.layers import Group, Layer
from stepwise.export.quantize.plan import Entry
from stepwise.export.quantize.search.bit_allocation import Choice, sweep
from stepwise.export.quantize.search.fake_quant import Measured, quantized
from stepwise.export.quantize.search.metrics import psnr
from stepwise.export.quantize.search.runtimes import Limit, Runtime
from stepwise.export.quantize.search.sensitivity import Scores, Trial, loss

log = logging.getLogger(__name__)

# How many divisions of the budget between content and quality layers are tried.
DIVISIONS = 9


def choose(
    study: Study,
    layers: Sequence[Layer],
    scores: Scores,
    found: tuple[Recording, FirstToken],
    runtime: Runtime,
    limit: Limit,
    protected: Iterable[str] = (),
) -> dict[str, Entry]:
    """An entry for each layer, all weights together within the limit.

    Layers that match a name in ``protected``, where ``*`` is any text, are not quantized. Each
    division's plan draws the study's pictures; the plan with pictures nearest to those of the float
    UNet is taken. Raises QuantizationError if no plan fits or a protected name matches no layer.
    """
    kept = protected_names(layers, protected)

    def allowed(layer: Layer) -> Set[int]:
        return {FLOAT_BITS} if layer.name in kept else limit.bits & runtime.bits(layer).keys()

    groups = {
        group: {
            layer.name: [_choice(layer, bits, scores, runtime) for bits in allowed(layer)]
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
        for allocation in sweep(groups, limit.size, DIVISIONS)
    ]
    different = [plan for place, plan in enumerate(plans) if plan not in plans[:place]]
    references = study.pictures()
    closeness = []
    for plan in tqdm(different, "comparing plans", unit="plan"):
        with quantized(study.unet, layers, plan, measured(layers, plan, *found), runtime.rounding):
            closeness.append(psnr(study.pictures(), references))
    best = max(range(len(different)), key=closeness.__getitem__)
    log.info("%d plans, the best of which has %.1f dB", len(different), closeness[best])
    return different[best]


def measured(
    layers: Sequence[Layer], plan: dict[str, Entry], recording: Recording, first: FirstToken
) -> Measured:
    """The results of calibration, with the ranges that a plan selects."""
    clippings = {name: entry.clipping for name, entry in plan.items()}
    return Measured(activations(recording, layers, clippings), first)


def protected_names(layers: Sequence[Layer], patterns: Iterable[str]) -> set[str]:
    """The layers that match names in which ``*`` is any text; QuantizationError if one has none."""
    kept: set[str] = set()
    for pattern in patterns:
        names = {layer.name for layer in layers if fnmatchcase(layer.name, pattern)}
        if not names:
            raise QuantizationError(
                f"no layer to protect is called {pattern!r}; names are like {layers[0].name!r}, "
                "and * matches any text"
            )
        kept |= names
    return kept


def _choice(layer: Layer, bits: int, scores: Scores, runtime: Runtime) -> Choice:
    entry = _entry(layer, bits, scores, runtime)
    known = [score for score in (entry.weight_score, entry.activation_score) if score is not None]
    cost = sum(loss(layer.group, score) for score in known)
    return Choice(bits, runtime.size(layer, bits), -cost)


def _entry(layer: Layer, bits: int, scores: Scores, runtime: Runtime) -> Entry:
    """A layer at ``bits``, with the best clipping of its activations; 16 bits have no scores."""
    due = runtime.bits(layer)[bits]
    tried = {clipping: Trial(layer.name, layer.group, due, clipping) for clipping in Clipping}
    found = {clipping: scores[trial] for clipping, trial in tried.items() if trial in scores}
    clipping = max(found, key=found.__getitem__, default=Clipping.MINMAX)
    weight_score = scores.get(Trial(layer.name, layer.group, bits))
    return Entry(bits, due, weight_score, found.get(clipping), clipping)
