"""The UNet behind all rows of the table: in torch, as a float graph, and calibrated."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.quantization.outlier_token import plant
from miniatures.prompts import CALIBRATION
from stepwise.description.spec import Component
from stepwise.export.checkpoint.folder import Checkpoint, weights_digest
from stepwise.export.families import family_export
from stepwise.export.families.base import Keep
from stepwise.export.onnx.exporter import write_graph
from stepwise.export.onnx.shapes import Sizes, traced
from stepwise.export.quantize.calibration.sampling import Study, open_study
from stepwise.export.quantize.pipeline import Findings, drawn, examine, kept
from stepwise.export.quantize.search import sensitivity


@dataclass(frozen=True)
class Source:
    """The checkpoint of the studied UNet, with an outlier in the first token if ``planted``."""

    checkpoint: Checkpoint
    planted: bool

    def calibration(self) -> Study:
        """A study of captions outside of the evaluation, with its own copy of the weights."""
        return self._opened(open_study(self.checkpoint, drawn(self.checkpoint, CALIBRATION)))

    def study(self, captions: Sequence[str], steps: int) -> Study:
        """A study of these captions, with its own copy of the weights."""
        drawing = replace(drawn(self.checkpoint, CALIBRATION), prompts=tuple(captions), steps=steps)
        return self._opened(open_study(self.checkpoint, drawing))

    @property
    def folder(self) -> Path:
        """The folder where an export stores its measurements of the checkpoint."""
        found = kept(weights_digest(self.checkpoint), drawn(self.checkpoint, CALIBRATION))
        return found.with_name(f"{found.name}_planted") if self.planted else found

    def _opened(self, study: Study) -> Study:
        if not self.planted:
            return study
        return plant(study, open_study(self.checkpoint, drawn(self.checkpoint, CALIBRATION)).texts)


@dataclass(frozen=True)
class Subject:
    """A UNet, its float32 graph, and a folder for the graphs made from it."""

    source: Source
    component: Component
    sizes: Sizes
    graph: Path
    findings: Findings
    folder: Path

    @property
    def keep(self) -> Keep:
        """The parts that stay in float32 in a float16 graph."""
        return family_export(self.source.checkpoint.family.name).keep(self.component.name)


def begin(source: Source, folder: Path) -> Subject:
    """Calibrate a UNet and write its float32 graph into ``folder``."""
    checkpoint, study = source.checkpoint, source.calibration()
    component = checkpoint.family.denoiser
    sizes = traced(checkpoint.sides, checkpoint.vae_scale, 0)
    if source.planted:
        # The outlier changes only the inputs of these layers.
        texts = {layer.name for layer in study.layers if layer.begins_alike}
        plain = replace(source, planted=False).folder
        sensitivity.borrow(plain, source.folder, lambda trial: trial.layer not in texts)
    findings = examine(study, source.folder)
    place = folder / "FP32"
    place.mkdir(parents=True)
    graph = write_graph(study.denoiser, component, sizes, place)
    return Subject(source, component, sizes, graph, findings, folder)


def less(subject: Subject, **changes: Any) -> Findings:
    """The findings with ``changes`` applied to all layers."""
    found = subject.findings
    return replace(found, layers=[replace(layer, **changes) for layer in found.layers])
