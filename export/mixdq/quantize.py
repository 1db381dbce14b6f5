"""From a checkpoint to a plan for its UNet, in steps that are not done twice."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from export.checkpoint import Checkpoint, weights_digest
from export.errors import QuantizationError, reason
from export.mixdq import plot, sensitivity
from export.mixdq.activations import Clipping, activations
from export.mixdq.calibrate import calibrate
from export.mixdq.choose import choose
from export.mixdq.first_token import FirstToken, first_token
from export.mixdq.layers import Layer
from export.mixdq.plan import Plan
from export.mixdq.recording import Recording
from export.mixdq.runtimes import RUNTIMES, limit
from export.mixdq.sensitivity import Scores
from export.mixdq.study import Study, open_study
from export.rehearsal import Drawing

# Of the pictures that ranges are taken from, how many each trial of a layer draws, and each plan.
_JUDGED, _COMPARED = 4, 8
# Steps and guidance of those pictures: each family's own, and no more than show all noise levels.
_DRAWN = {"sdxl_turbo": (4, 0.0), "sdxl": (10, 5.0)}


@dataclass(frozen=True)
class Findings:
    """What is known of a UNet before there is a budget."""

    study: Study
    layers: Sequence[Layer]
    recording: Recording
    first: FirstToken
    scores: Scores

    @property
    def compared(self) -> Study:
        """The pictures that plans are compared by."""
        return replace(self.study, requests=self.study.requests[:_COMPARED])


def read_prompts(path: Path) -> tuple[str, ...]:
    """One prompt a line; QuantizationError if there is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise QuantizationError(
            f"{path} cannot be read ({reason(error)}); give a text file with one prompt a line"
        ) from error
    if not (prompts := tuple(line.strip() for line in lines if line.strip())):
        raise QuantizationError(f"{path} holds no prompt; write one a line, 8 or more")
    return prompts


def examine(
    checkpoint: Checkpoint, prompts: tuple[str, ...], runtime: str, folder: Path
) -> Findings:
    """Calibrate a checkpoint's UNet and measure each of its layers.

    What takes long is kept in ``folder``, under a digest of all that decides it, with a plot of
    the scores. Raises CheckpointError, and QuantizationError for a family without a UNet.
    """
    family = checkpoint.pipeline.family
    if family not in _DRAWN:
        raise QuantizationError(
            f"got {family}, which has no UNet; {', '.join(_DRAWN)} can be quantized"
        )
    drawing = Drawing(prompts, *_DRAWN[family], largest_side=checkpoint.sides.native)
    study = open_study(checkpoint, drawing)
    kept = folder / _key(checkpoint, drawing)
    layers = study.layers
    recording = calibrate(study, layers, kept / "calibration")
    first = first_token(study.unet, layers, study.texts)
    path = kept / f"sensitivity_{runtime}.jsonl"
    scores = measure(study, layers, (recording, first), runtime, path)
    plot.write(layers, scores, path.with_suffix(".png"))
    return Findings(study, layers, recording, first, scores)


def measure(
    study: Study,
    layers: Sequence[Layer],
    found: tuple[Recording, FirstToken],
    runtime: str,
    path: Path,
) -> Scores:
    """The scores of layers, on as many pictures as one layer needs."""
    recording, first = found
    ranges = {
        clipping: activations(recording, layers, {layer.name: clipping for layer in layers})
        for clipping in Clipping
    }
    few = replace(study, requests=study.requests[:_JUDGED])
    return sensitivity.measure(few, layers, ranges, first, RUNTIMES[runtime], path)


def plan(
    checkpoint: Checkpoint,
    findings: Findings,
    runtime: str,
    budget: str,
    protected: Iterable[str] = (),
) -> Plan:
    """The best plan within a budget: a name of BUDGETS, or bytes; QuantizationError if none is."""
    used, layers = RUNTIMES[runtime], findings.layers
    allowed = limit(budget, layers, used)
    found = (findings.recording, findings.first)
    entries = choose(findings.compared, layers, findings.scores, found, used, allowed, protected)
    return Plan(str(checkpoint.origin), allowed.size, entries)


def _key(checkpoint: Checkpoint, drawing: Drawing) -> str:
    decided = f"{weights_digest(checkpoint)}\n{drawing!r}"
    return hashlib.sha256(decided.encode()).hexdigest()[:16]
