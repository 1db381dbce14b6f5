"""The figures of each row: bytes, milliseconds, PSNR and SSIM to FP32, percent right."""

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from tqdm import tqdm

from benchmarks.quantization.variants import FP32, Row
from miniatures.prompts import Prompt
from miniatures.score import score
from stepwise.export.quantize.calibration.sampling import Feed, Study, batches, draw
from stepwise.export.quantize.search.metrics import psnr, ssim

Levels = npt.NDArray[np.uint8]
_ROUNDS = 60
# Replaces an infinite PSNR, which JSON cannot store.
IDENTICAL = "identical"


def open_session(row: Row) -> onnxruntime.InferenceSession:
    """Open a graph's session on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(row.graph, options, providers=["CPUExecutionProvider"])


def pictures(session: onnxruntime.InferenceSession, study: Study, label: str) -> Levels:
    """A study's pictures with a graph as the UNet, uint8 (pictures, 3, height, width)."""

    def predict(feed: Feed) -> Any:
        return session.run(None, dict(feed))[0]

    parts = list(batches(study.requests))
    drawn = [study.decode(draw(predict, part)) for part in tqdm(parts, label, unit="batch")]
    return np.concatenate(drawn).round().clip(0, 255).astype(np.uint8)


def quality(made: Levels, references: Levels, prompts: Sequence[Prompt]) -> dict[str, float | str]:
    """PSNR and SSIM to the float graph's pictures, and percent with every attribute right."""
    right = [
        all(score(picture.transpose(1, 2, 0), prompt.scene).values())
        for picture, prompt in zip(made, prompts, strict=True)
    ]
    nearness = psnr(made, references)
    return {
        "psnr_db": round(nearness, 2) if np.isfinite(nearness) else IDENTICAL,
        "ssim": round(ssim(made, references), 4),
        "right_percent": round(100 * float(np.mean(right)), 2),
    }


def size(row: Row) -> int:
    """Bytes of a graph with its weights."""
    return sum(path.stat().st_size for path in row.graph.parent.glob(f"{row.graph.name}*"))


def speed(
    sessions: Mapping[str, onnxruntime.InferenceSession], feed: Feed
) -> dict[str, dict[str, float]]:
    """Median milliseconds of a call, and the speed-up over FP32, by label.

    Rows take turns, and the ratio is taken within a round, so that other load on the machine
    affects all rows equally.
    """
    times: dict[str, list[float]] = {label: [] for label in sessions}
    for number in tqdm(range(_ROUNDS + 1), "timing", unit="round"):
        for label, session in sessions.items():
            started = time.perf_counter()
            session.run(None, dict(feed))
            if number:
                times[label].append(1000 * (time.perf_counter() - started))
    plain = times[FP32]
    return {
        label: {
            "milliseconds": round(statistics.median(spent), 3),
            "times_as_fast": round(
                statistics.median(a / b for a, b in zip(plain, spent, strict=True)), 3
            ),
        }
        for label, spent in times.items()
    }
