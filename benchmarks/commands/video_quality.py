"""Scores videos of the evaluation list from the server and from diffusers, and times their arrival.

The scorer reads videos frame by frame without a learned model; both sides get the same captions and
seeds. Image-to-video pipelines start from the first frame of a drawing.
"""

import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.harness.diffusers_baseline import Diffusers, Picture, decibels, psnr
from miniatures.score_videos import score
from miniatures.videos import FRAMES, SIDE, Evaluated, Video, draw, evaluation
from stepwise.client import Client
from stepwise.description.manifest import Manifest
from stepwise.families import FAMILIES
from stepwise.server.process import serving

STEPS = 20
# The best scale for the miniatures, and EasyAnimate's own.
GUIDANCE_SCALES = (2.0, 5.0)
AT_ONCE = 4
LENGTHS = (17, 49, 145)
TIMED = 5
# Required PSNR between a video's first frame and its start image.
LEAST_LIKENESS_DB = 25.0


def measure(repository: Path, checkpoint: Path, name: str) -> dict[str, Any]:
    """Percent of videos that are right, PSNR between the two sides, and seconds to frames."""
    pipeline = FAMILIES[Manifest.read(repository / name).family]
    videos, starts = evaluation(), pipeline.image_encoder is not None
    with serving(repository) as server:
        client = Client(server.grpc_url)
        served = {g: _served(client, name, videos, g, starts=starts) for g in GUIDANCE_SCALES}
        arrivals = {str(frames): _arrival(client, name, frames, starts) for frames in LENGTHS}
    peer = Diffusers(checkpoint)
    return {
        "steps": STEPS,
        "frames": FRAMES,
        "by_guidance_scale": {
            str(guidance): _figures(
                videos, ours, _diffusers(peer, videos, guidance, starts), starts
            )
            for guidance, ours in served.items()
        },
        "seconds_by_frames": arrivals,
    }


def start_image(row: Evaluated) -> Picture:
    """The first frame of a drawing of the requested video; training has not seen this drawing."""
    frame: Picture = draw(row.video, random.Random(f"start {row.seed}"))[0]
    return frame


def _images(row: Evaluated, starts: bool, name: str) -> dict[str, Picture]:
    return {name: start_image(row)} if starts else {}


def _served(
    client: Client, name: str, videos: Sequence[Evaluated], guidance: float, *, starts: bool
) -> list[Picture]:
    def one(row: Evaluated) -> Picture:
        settings = {"steps": STEPS, "guidance_scale": guidance, "frames": FRAMES}
        given = {**settings, **_images(row, starts, "start_image")}
        event = client.video(name, row.video.caption, seed=row.seed, **given)
        assert event.frames is not None
        return event.frames

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(tqdm(threads.map(one, videos), f"served, guidance {guidance}", len(videos)))


def _diffusers(
    peer: Diffusers, videos: Sequence[Evaluated], guidance: float, starts: bool
) -> list[Picture]:
    size = {"num_frames": FRAMES, "height": SIDE, "width": SIDE, "guidance_scale": guidance}
    return [
        peer.video(row.video.caption, row.seed, STEPS, **_images(row, starts, "start"), **size)
        for row in tqdm(videos, f"diffusers, guidance {guidance}")
    ]


def _figures(
    videos: Sequence[Evaluated], served: Sequence[Picture], due: Sequence[Picture], starts: bool
) -> dict[str, Any]:
    worst = [
        min(psnr(*frames) for frames in zip(*pair, strict=True))
        for pair in zip(served, due, strict=True)
    ]
    figures = {
        "served": _shares(videos, served),
        "diffusers": _shares(videos, due),
        "psnr_to_diffusers_worst_frame": decibels(min(worst)),
        "psnr_to_diffusers_median_of_worst_frames": decibels(float(np.median(worst))),
        "wrong_when_served": [
            f"{row.video.caption} (seed {row.seed}): {', '.join(_wrong(row, video))}"
            for row, video in zip(videos, served, strict=True)
            if _wrong(row, video)
        ],
    }
    if starts:
        near = [psnr(video[0], start_image(row)) for row, video in zip(videos, served, strict=True)]
        figures["psnr_of_first_frames_to_the_image"] = {
            "worst": decibels(min(near)),
            "median": decibels(float(np.median(near))),
        }
    return figures


def _wrong(row: Evaluated, video: Picture) -> list[str]:
    """The attributes that a video does not show in every frame."""
    return [name for name, right in score(video, row.video).items() if not right]


def _shares(videos: Sequence[Evaluated], made: Sequence[Picture]) -> dict[str, float]:
    """Percent of videos with every attribute right (all, seen, held out), and by attribute."""
    wrong = [set(_wrong(row, video)) for row, video in zip(videos, made, strict=True)]
    held_out = [row.held_out for row in videos]
    shares = {
        "all": [not each for each in wrong],
        "seen": [not each for each, held in zip(wrong, held_out, strict=True) if not held],
        "held_out": [not each for each, held in zip(wrong, held_out, strict=True) if held],
        **{field.name: [field.name not in each for each in wrong] for field in fields(Video)},
    }
    return {name: round(100 * float(np.mean(rights)), 1) for name, rights in shares.items()}


def _arrival(client: Client, name: str, frames: int, starts: bool) -> dict[str, float]:
    """Median seconds from a request to its first and last slice, on an otherwise idle server."""
    rows = evaluation()[: TIMED + 1]
    timed = [list(_times(client, name, row, frames, starts)) for row in rows]
    ends = {"first": 0, "last": -1}
    return {end: round(float(np.median([t[at] for t in timed[1:]])), 3) for end, at in ends.items()}


def _times(client: Client, name: str, row: Evaluated, frames: int, starts: bool) -> Iterator[float]:
    """Seconds from the request to each slice."""
    began = time.perf_counter()
    given = {"steps": STEPS, "frames": frames, **_images(row, starts, "start_image")}
    for event in client.generate(name, row.video.caption, seed=row.seed, **given):
        if event.kind == "result":
            yield time.perf_counter() - began
