"""The tables of all rows, with the miniature's first token and with an outlier as in real CLIP."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.quantization import engines, image_grid, server_speed
from benchmarks.quantization.figures import Levels, open_session, pictures, quality, size, speed
from benchmarks.quantization.setup import Source, Subject, begin
from benchmarks.quantization.variants import FP32, STOCK, WHOLE, Row, choose, feeds, rows
from miniatures.prompts import Prompt
from stepwise.export.checkpoint.folder import Checkpoint
from stepwise.export.quantize.calibration.sampling import Study

STEPS = (4, 1)
_ROWS_AT_ONCE = 8
# Allowed loss against FP32, in percentage points of pictures that are right.
MAY_LOSE = {WHOLE: 1.0, "MixDQ W4A8": 3.0}
# The rows to also measure on a server.
SERVED = (FP32, STOCK, WHOLE, "MixDQ W4A8")
Figures = dict[str, Any]
# The pictures of each row, by steps.
Drawn = dict[str, dict[int, Levels]]


def measure(
    repository: Path, checkpoint: Checkpoint, prompts: Sequence[Prompt], picture: Path
) -> Figures:
    """Both tables, served speed and engines; writes a grid of pictures to ``picture``.

    ``repository`` has the checkpoint's export under its family's name.
    """
    with TemporaryDirectory() as folder:
        subject = begin(Source(checkpoint, planted=False), Path(folder))
        plans = choose(subject)
        made = list(rows(subject, plans))
        found, drawn = _measured(subject, made, prompts)
        graphs = {row.label: row.graph for row in made if row.label in SERVED}
        asked = server_speed.measure(repository, checkpoint.family, graphs, prompts)
        built = engines.measure(subject, plans, Path(folder))
    with TemporaryDirectory() as folder:
        subject = begin(Source(checkpoint, planted=True), Path(folder))
        changed = list(rows(subject, choose(subject)))
        planted, with_outlier = _measured(subject, changed, prompts)
    sheet = {label: levels[STEPS[0]] for label, levels in drawn.items()}
    sheet |= {f"outlier: {label}": levels[STEPS[0]] for label, levels in with_outlier.items()}
    image_grid.write(sheet, prompts, picture)
    return {
        "pictures": len(prompts),
        "threads": 1,
        "instructions": instructions(),
        "rows": found,
        "rows_with_an_outlier_planted_in_the_first_token": planted,
        "served_4_steps": asked,
        "tensorrt": built,
        "failures": [*failures(found), *slower(asked), *engines.failures(built)],
    }


def _measured(
    subject: Subject, made: Sequence[Row], prompts: Sequence[Prompt]
) -> tuple[Figures, Drawn]:
    source = subject.source
    captions = [prompt.scene.caption for prompt in prompts]
    studies = {steps: source.study(captions, steps) for steps in STEPS}
    sessions = {row.label: open_session(row) for row in made}
    drawn = {
        row.label: {
            steps: pictures(sessions[row.label], study, f"{row.label}, {steps} steps")
            for steps, study in studies.items()
        }
        for row in made
    }
    alone, together = (speed(sessions, _feed(studies[1], n)) for n in (1, _ROWS_AT_ONCE))
    figures = {
        row.label: {
            **_sized(row, made[0], made[1]),
            "one_row": alone[row.label],
            f"{_ROWS_AT_ONCE}_rows": together[row.label],
            **{
                f"{steps}_steps": quality(drawn[row.label][steps], drawn[FP32][steps], prompts)
                for steps in STEPS
            },
            **row.told,
        }
        for row in made
    }
    return figures, drawn


def _sized(row: Row, single: Row, half: Row) -> Figures:
    return {"bytes": size(row), "times_smaller_than_fp16": round(size(half) / size(row), 3)}


def _feed(study: Study, count: int) -> dict[str, Any]:
    """The inputs of one call for ``count`` pictures."""
    calls = feeds(replace(study, requests=study.requests[:count]))
    return {name: np.concatenate([call[name] for call in calls]) for name in calls[0]}


def instructions() -> list[str]:
    """The processor's instruction sets for 8-bit products."""
    flags = Path("/proc/cpuinfo").read_text().split()
    return [name for name in ("avx2", "avx_vnni", "avx512_vnni", "amx_int8") if name in flags]


def slower(asked: Figures) -> list[str]:
    """An error sentence wherever the method's graph is not faster than the stock tool's."""
    return [
        f"{WHOLE} is {figures[WHOLE]['times_as_fast']} times as fast as FP32 with {count}, "
        f"{STOCK} {figures[STOCK]['times_as_fast']} times"
        for count, figures in asked.items()
        if figures[WHOLE]["times_as_fast"] <= figures[STOCK]["times_as_fast"]
    ]


def failures(found: Figures) -> list[str]:
    """An error sentence for each failed expectation of the table."""
    told = []
    for steps in (f"{steps}_steps" for steps in STEPS):
        for label, allowed in MAY_LOSE.items():
            lost = found[FP32][steps]["right_percent"] - found[label][steps]["right_percent"]
            if lost > allowed:
                told.append(f"{label} loses {lost:.2f} points in {steps}, {allowed:g} are allowed")
        best = found[WHOLE][steps]["psnr_db"]
        for label, figures in found.items():
            if label.startswith(("naive", "nvidia", "onnxruntime")):
                other = figures[steps]["psnr_db"]
                if other >= best:
                    told.append(f"{label} has {other} dB in {steps}, {WHOLE} only {best}")
    return told
