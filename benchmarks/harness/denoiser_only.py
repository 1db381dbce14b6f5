"""Runs the denoiser graph alone, without loop or server, to measure the gain of batching."""

import statistics
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks.harness.load_statistics import Batches
from benchmarks.harness.workload import Resolution
from stepwise.description.fields import Array
from stepwise.description.manifest import Manifest
from stepwise.local import LocalPipeline
from stepwise.local.steps import LATENTS, TIMESTEP

GUIDANCE_ROWS = 2


class Bare:
    """An exported pipeline's denoiser in an ONNX Runtime session of this process."""

    def __init__(self, repository: Path, name: str) -> None:
        self.manifest = Manifest.read(repository / name)
        self._pipeline = LocalPipeline(repository, name)
        self._row = self._pipeline.request("a picture").row_conditioning[-1]

    def call(self, resolution: Resolution, rows: int) -> float:
        """Milliseconds of one call with ``rows`` rows of this height and width in pixels."""
        height, width = (side // self.manifest.vae_scale for side in resolution)
        latents = np.zeros((rows, self.manifest.latent_channels, height, width), np.float32)
        timesteps = np.full(rows, 500, np.float32)
        feed = {LATENTS: latents, TIMESTEP: timesteps, **self._conditioning(rows)}
        started = time.perf_counter()
        self._pipeline.predict(feed)
        return 1000 * (time.perf_counter() - started)

    def _conditioning(self, rows: int) -> dict[str, Array]:
        """Conditioning of one prompt, repeated for ``rows`` rows."""
        return {name: np.stack([value] * rows) for name, value in self._row.items()}

    def median(
        self, cases: Iterable[tuple[Resolution, int]], calls: int
    ) -> dict[tuple[Resolution, int], float]:
        """Median milliseconds by resolution and rows, in turns, after one warm-up call each."""
        times: dict[tuple[Resolution, int], list[float]] = {case: [] for case in cases}
        for number in range(calls + 1):
            for case, milliseconds in times.items():
                spent = self.call(*case)
                if number:
                    milliseconds.append(spent)
        return {case: statistics.median(milliseconds) for case, milliseconds in times.items()}

    def gain(self, batches: Batches, calls: int) -> float:
        """Time of all guided steps one picture at a time, over the time of these batches."""
        sizes = {(resolution, n) for resolution, size in batches for n in (1, size)}
        spent = self.median(
            {(resolution, GUIDANCE_ROWS * size) for resolution, size in sizes}, calls
        )
        alone = sum(
            size * count * spent[resolution, GUIDANCE_ROWS]
            for (resolution, size), count in batches.items()
        )
        together = sum(
            count * spent[resolution, GUIDANCE_ROWS * size]
            for (resolution, size), count in batches.items()
        )
        return alone / together
