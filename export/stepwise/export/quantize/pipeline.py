"""Finds a plan for a checkpoint's UNet; slow steps are cached."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stepwise.description import formats
from stepwise.export.checkpoint.folder import Checkpoint, weights_digest
from stepwise.export.options import Quantization
from stepwise.export.preflight.smoke_test import Drawing
from stepwise.export.quantize import ranges
from stepwise.export.quantize.calibration.activation_ranges import (
    Activations,
    Clipping,
    activations,
)
from stepwise.export.quantize.calibration.bos_token import FirstToken, first_token
from stepwise.export.quantize.calibration.calibrate import calibrate
from stepwise.export.quantize.calibration.observers import Recording
from stepwise.export.quantize.calibration.sampling import Study, open_study
from stepwise.export.quantize.layers import Layer
from stepwise.export.quantize.plan import Entry, Plan, check
from stepwise.export.quantize.recipe import Recipe
from stepwise.export.quantize.search import plot, sensitivity
from stepwise.export.quantize.search.choose import choose
from stepwise.export.quantize.search.runtimes import BLOCK, RUNTIMES, limit
from stepwise.export.quantize.search.sensitivity import Scores
from stepwise.export.quantize.validate import calibration, check_source, read_prompts
from stepwise.export.repository.keys import MEASURERS, versions

log = logging.getLogger(__name__)

# The results of slow steps, by a digest of their inputs: budgets and names share them.
WORK = Path("out/mixdq")
# How many of the calibration pictures each trial of a layer draws, and each plan.
_JUDGED, _COMPARED = 4, 8


@dataclass(frozen=True)
class Findings:
    """The calibration of a UNet, before it has a plan; ``folder`` has all measurements."""

    study: Study
    layers: Sequence[Layer]
    recording: Recording
    first: FirstToken
    folder: Path

    def scores(self, runtime: str) -> Scores:
        """The sensitivity of each layer, plotted next to the scores; known scores are reused."""
        by_clipping = {
            clipping: activations(
                self.recording, self.layers, {layer.name: clipping for layer in self.layers}
            )
            for clipping in Clipping
        }
        few = replace(self.study, requests=self.study.requests[:_JUDGED])
        path = self.folder / f"sensitivity_{runtime}.jsonl"
        found = sensitivity.measure(
            few, self.layers, by_clipping, self.first, RUNTIMES[runtime], path
        )
        plot.write(self.layers, found, path.with_suffix(".png"))
        return found

    def entries(
        self, runtime: str, budget: str, protected: Sequence[str] = ()
    ) -> tuple[dict[str, Entry], int]:
        """The best plan within a budget, and its bytes; QuantizationError if none fits."""
        used, compared = RUNTIMES[runtime], self.study.requests[:_COMPARED]
        allowed = limit(budget, self.layers, used)
        study, found = replace(self.study, requests=compared), (self.recording, self.first)
        scores = self.scores(runtime)
        chosen = choose(study, self.layers, scores, found, used, allowed, protected)
        return chosen, allowed.size

    def recipe(self, plan: Plan) -> Recipe:
        """A plan with the activation ranges that its clippings select."""
        clippings = {name: entry.clipping for name, entry in plan.layers.items()}
        found = activations(self.recording, self.layers, clippings)
        return Recipe(self.layers, plan, found, self.first, BLOCK, self.folder.name)


def examine(study: Study, folder: Path) -> Findings:
    """Calibrate a UNet; batches in ``folder`` are not drawn again."""
    layers = study.layers
    recording = calibrate(study, layers, folder / "calibration")
    first = first_token(study.unet, layers, study.texts)
    return Findings(study, layers, recording, first, folder)


def prepare(checkpoint: Checkpoint, wanted: Quantization, runtime: str) -> Recipe:
    """The recipe that quantizes a checkpoint's UNet as ``wanted``.

    Results of slow steps are kept in WORK, under a digest of their inputs. A plan with matching
    ranges next to it needs no calibration. Raises CheckpointError and QuantizationError.
    """
    source = weights_digest(checkpoint)
    drawing = drawn(checkpoint, wanted.prompts)
    plan = Plan.read(wanted.plan) if wanted.plan else None
    if wanted.plan and plan:
        check_source(plan, source)
        known = ranges.read(
            wanted.plan.with_name(ranges.FILE), plan.layers, kept(source, drawing).name
        )
        if known:
            return _followed(checkpoint, drawing, plan, known, kept(source, drawing).name)
    findings = examine(open_study(checkpoint, drawing), kept(source, drawing))
    if plan is None:
        found = findings.entries(runtime, wanted.budget, wanted.protected)
        return findings.recipe(Plan(str(checkpoint.origin), source, found[1], found[0]))
    check(plan, findings.layers)
    return findings.recipe(plan)


def _followed(
    checkpoint: Checkpoint, drawing: Drawing, plan: Plan, known: Activations, recorded: str
) -> Recipe:
    """The recipe of a plan with known ranges; two prompts suffice to find the first token."""
    study = open_study(checkpoint, replace(drawing, prompts=drawing.prompts[:2]))
    check(plan, study.layers)
    log.info("following %d layers of a plan with the ranges next to it", len(plan.layers))
    first = first_token(study.unet, study.layers, study.texts)
    return Recipe(study.layers, plan, known, first, BLOCK, recorded)


def drawn(checkpoint: Checkpoint, prompts: Path) -> Drawing:
    """The pictures that a checkpoint is calibrated with, at its native size."""
    how, side = calibration(checkpoint), checkpoint.sides.native
    return Drawing(read_prompts(prompts), how.steps, how.guidance_scale, side)


def kept(source: str, drawing: Drawing) -> Path:
    """The folder of a drawing's measurements of files with the digest ``source``.

    It changes with the format and with the versions of the libraries that draw and measure.
    """
    measured = f"{source}\n{drawing!r}\n{formats.QUANTIZED}\n{versions(*MEASURERS)}"
    return WORK / hashlib.sha256(measured.encode()).hexdigest()[:16]
