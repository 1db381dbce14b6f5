"""Measures seconds and memory of decoding a video, slice by slice and all at once.

Each case runs in a separate process, for which the operating system reports peak resident memory.
Frames are larger than the miniature's, so that they and not the libraries dominate memory.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from stepwise.description.fields import Array
from stepwise.description.graph_files import GRAPH
from stepwise.description.manifest import Manifest, VideoLayout
from stepwise.description.vae_caches import with_caches
from stepwise.families import FAMILIES
from stepwise.local.pipeline import open_session
from stepwise.video import sliced_vae

SIDE = 32
LENGTHS = (17, 145)
WAYS = ("sliced", "whole")
# Allowed memory of a video of 145 frames, as a multiple of one of 17.
MOST_GROWTH = 1.2


def measure(repository: Path, name: str) -> dict[str, Any]:
    """Peak memory and seconds by way and number of frames; a failure if sliced memory grows."""
    found = {
        way: {str(frames): apart(repository, name, way, frames) for frames in LENGTHS}
        for way in WAYS
    }
    short, long = (found["sliced"][str(frames)]["peak_mb"] for frames in LENGTHS)
    growth = round(long / short, 3)
    failures = [f"145 frames take {growth} times the memory of 17; at most {MOST_GROWTH}"]
    return {
        "pixels": [8 * SIDE, 8 * SIDE],
        "by_way_and_frames": found,
        "sliced_145_over_17": growth,
        "failures": failures if growth > MOST_GROWTH else [],
    }


def apart(repository: Path, name: str, way: str, frames: int) -> dict[str, float]:
    """Run ``decode`` in a separate process."""
    command = [sys.executable, "-m", __name__, str(repository), name, way, str(frames)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures: dict[str, float] = json.loads(shown.splitlines()[-1])
    return figures


def decode(repository: Path, name: str, way: str, frames: int) -> dict[str, float]:
    """Decode random latents. Returns this process's peak in MB, and seconds to first and last."""
    manifest = Manifest.read(repository / name)
    assert manifest.video is not None
    run = runner(repository, manifest)
    shape = (manifest.latent_channels, manifest.video.latent_frames(frames), SIDE, SIDE)
    latents = np.random.default_rng(0).standard_normal(shape, np.float32)
    began, times = time.perf_counter(), []
    slices = sliced_vae.decode(run, latents, manifest.video)
    for _ in slices if way == "sliced" else whole(run, latents, manifest.video):
        times.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {
        "peak_mb": round(peak),
        "seconds_to_first": round(times[0], 2),
        "seconds_to_last": round(times[-1], 2),
    }


def runner(repository: Path, manifest: Manifest) -> sliced_vae.Run:
    """A function that runs the decoder's graph."""
    assert manifest.video is not None
    decoder = FAMILIES[manifest.family].decoder
    graph = repository / f"{manifest.name}_{decoder.name}" / "1" / GRAPH
    opened = open_session(graph)
    names = [tensor.name for tensor in with_caches(decoder, manifest.video.decoder_caches).outputs]
    return lambda inputs: dict(zip(names, opened.run(names, dict(inputs)), strict=True))


def whole(run: sliced_vae.Run, latents: sliced_vae.Float32, layout: VideoLayout) -> list[Array]:
    """Decode all latents but the first in one call, which needs the memory that slices save."""
    rest = latents[None, :, 1:]

    def after_the_first(inputs: Any) -> Any:
        if inputs["first"].item():
            return run(inputs)
        return run({**inputs, "latents": rest})

    frames = [part for _, part in sliced_vae.decode(after_the_first, latents[:, :2], layout)]
    return [np.concatenate(frames)]


if __name__ == "__main__":
    folder, pipeline, way_, count = sys.argv[1:]
    print(json.dumps(decode(Path(folder), pipeline, way_, int(count))))
