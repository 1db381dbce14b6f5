"""The UNet that all rows of the table begin with: in torch, as a float graph, calibrated."""

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
    """A checkpoint whose UNet is studied, with an outlier for a first token if ``planted``."""

    checkpoint: Checkpoint
    planted: bool

    def calibration(self) -> Study:
        """Captions that are not evaluated; weights are its own."""
        return self._opened(open_study(self.checkpoint, drawn(self.checkpoint, CALIBRATION)))

    def study(self, captions: Sequence[str], steps: int) -> Study:
        """These captions; weights are its own."""
        drawing = replace(drawn(self.checkpoint, CALIBRATION), prompts=tuple(captions), steps=steps)
        return self._opened(open_study(self.checkpoint, drawing))

    @property
    def folder(self) -> Path:
        """Where an export keeps what it measures of the checkpoint."""
        found = kept(weights_digest(self.checkpoint), drawn(self.checkpoint, CALIBRATION))
        return found.with_name(f"{found.name}_planted") if self.planted else found

    def _opened(self, study: Study) -> Study:
        if not self.planted:
            return study
        return plant(study, open_study(self.checkpoint, drawn(self.checkpoint, CALIBRATION)).texts)


@dataclass(frozen=True)
class Subject:
    """A UNet, its float32 graph, and a folder for the graphs that become of it."""

    source: Source
    component: Component
    sizes: Sizes
    graph: Path
    findings: Findings
    folder: Path

    @property
    def keep(self) -> Keep:
        """What of it stays in float32 in a float16 graph."""
        return family_export(self.source.checkpoint.family.name).keep(self.component.name)


def begin(source: Source, folder: Path) -> Subject:
    """Calibrate a UNet and write its float32 graph into ``folder``."""
    checkpoint, study = source.checkpoint, source.calibration()
    component = checkpoint.family.denoiser
    sizes = traced(checkpoint.sides, checkpoint.vae_scale, 0)
    if source.planted:
        # The outlier changes nothing but what these layers are given.
        texts = {layer.name for layer in study.layers if layer.begins_alike}
        plain = replace(source, planted=False).folder
        sensitivity.borrow(plain, source.folder, lambda trial: trial.layer not in texts)
    findings = examine(study, source.folder)
    place = folder / "FP32"
    place.mkdir(parents=True)
    graph = write_graph(study.denoiser, component, sizes, place)
    return Subject(source, component, sizes, graph, findings, folder)


def less(subject: Subject, **changes: Any) -> Findings:
    """What was found, of layers that are changed so."""
    found = subject.findings
    return replace(found, layers=[replace(layer, **changes) for layer in found.layers])
