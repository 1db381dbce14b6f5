"""All rows side by side, as they are and with the first token that the real CLIP has."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.quantized import grid
from benchmarks.quantized.figures import Levels, open_session, pictures, quality, size, speed
from benchmarks.quantized.rows import FP32, WHOLE, Row, feeds, rows
from benchmarks.quantized.subject import Source, begin
from export.checkpoint import Checkpoint
from export.mixdq.study import Study
from miniatures.prompts import Prompt

STEPS = (4, 1)
_ROWS_AT_ONCE = 8
# Percentage points of pictures right that may be lost against FP32.
MAY_LOSE = {WHOLE: 1.0, "MixDQ W4A8": 3.0}
Figures = dict[str, Any]
# The pictures of each row, by steps.
Drawn = dict[str, dict[int, Levels]]


def measure(checkpoint: Checkpoint, prompts: Sequence[Prompt], picture: Path) -> Figures:
    """Every row of both tables; a grid of pictures is written to ``picture``."""
    plain, planted = (_table(Source(checkpoint, planted), prompts) for planted in (False, True))
    made = {label: drawn[STEPS[0]] for label, drawn in plain[1].items()}
    made |= {f"outlier planted: {label}": drawn[STEPS[0]] for label, drawn in planted[1].items()}
    grid.write(made, prompts, picture)
    figures = {
        "pictures": len(prompts),
        "threads": 1,
        "instructions": instructions(),
        "rows": plain[0],
        "rows_with_an_outlier_planted_in_the_first_token": planted[0],
    }
    return {**figures, "failures": failures(plain[0])}


def _table(source: Source, prompts: Sequence[Prompt]) -> tuple[Figures, Drawn]:
    with TemporaryDirectory() as folder:
        return _measured(source, list(rows(begin(source, Path(folder)))), prompts)


def _measured(
    source: Source, made: Sequence[Row], prompts: Sequence[Prompt]
) -> tuple[Figures, Drawn]:
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
    """One call for so many pictures."""
    calls = feeds(replace(study, requests=study.requests[:count]))
    return {name: np.concatenate([call[name] for call in calls]) for name in calls[0]}


def instructions() -> list[str]:
    """What the processor has for products of 8 bits."""
    flags = Path("/proc/cpuinfo").read_text().split()
    return [name for name in ("avx2", "avx_vnni", "avx512_vnni", "amx_int8") if name in flags]


def failures(found: Figures) -> list[str]:
    """What the rows should show and do not."""
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
