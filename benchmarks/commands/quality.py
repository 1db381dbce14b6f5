"""Scores and compares pictures of the evaluation lists from the server and from diffusers.

The scorer uses no learned model; both sides get the same prompts and seeds.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.harness.diffusers_baseline import Diffusers, Picture, decibels, psnr
from benchmarks.harness.tasks import TASKS, Task
from miniatures.prompts import Prompt
from miniatures.score import score
from stepwise.client import Client
from stepwise.description.manifest import Manifest
from stepwise.server.process import Server

AT_ONCE = 8


def measure(
    server: Server, checkpoint: Path, name: str, prompts: Sequence[Prompt]
) -> dict[str, Any]:
    """Percent of pictures with every attribute right, and PSNR between the two sides.

    One result for each number of steps in the family's tasks.
    """
    manifest = Manifest.read(server.settings.repository / name)
    tasks, client = TASKS[manifest.family].quality, Client(server.grpc_url)
    served = [_served(client, name, prompts, task, manifest) for task in tasks]
    diffusers = Diffusers(checkpoint, manifest.tokens.get("t5"))
    reference = [_diffusers(diffusers, prompts, task, manifest) for task in tasks]
    return {
        "precision": manifest.precision,
        "by_steps": {
            str(task.steps): {
                "guidance_scale": task.guidance_scale,
                **_figures(prompts, ours, theirs),
            }
            for task, ours, theirs in zip(tasks, served, reference, strict=True)
        },
    }


def _served(
    client: Client, name: str, prompts: Sequence[Prompt], task: Task, manifest: Manifest
) -> list[Picture]:
    settings = {"steps": task.steps, **task.settings(manifest)}

    def one(prompt: Prompt) -> Picture:
        event = client.pictures(name, prompt.scene.caption, seed=prompt.seed, **settings)[0]
        assert event.image is not None
        return event.image

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(tqdm(threads.map(one, prompts), f"served, {task.steps} steps", len(prompts)))


def _diffusers(
    diffusers: Diffusers, prompts: Sequence[Prompt], task: Task, manifest: Manifest
) -> list[Picture]:
    pictures: list[Picture] = []
    for start in tqdm(range(0, len(prompts), AT_ONCE), f"diffusers, {task.steps} steps"):
        rows = prompts[start : start + AT_ONCE]
        captions, seeds = [row.scene.caption for row in rows], [row.seed for row in rows]
        pictures += diffusers.pictures(captions, seeds, task.steps, **task.settings(manifest))
    return pictures


def _figures(
    prompts: Sequence[Prompt], served: Sequence[Picture], reference: Sequence[Picture]
) -> dict[str, Any]:
    closeness = [psnr(ours, theirs) for ours, theirs in zip(served, reference, strict=True)]
    return {
        "served": _shares(prompts, served),
        "diffusers": _shares(prompts, reference),
        "psnr_to_diffusers_worst": decibels(min(closeness)),
        "psnr_to_diffusers_median": decibels(float(np.median(closeness))),
        "wrong_when_served": [
            f"{prompt.scene.caption} (seed {prompt.seed})"
            for prompt, picture in zip(prompts, served, strict=True)
            if not _right(prompt, picture)
        ],
    }


def _right(prompt: Prompt, picture: Picture) -> bool:
    return all(score(picture, prompt.scene).values())


def _shares(prompts: Sequence[Prompt], pictures: Sequence[Picture]) -> dict[str, float]:
    """Percent of pictures with every attribute right, for seen and for held-out captions."""
    rights: dict[str, list[bool]] = {"seen": [], "held_out": []}
    for prompt, picture in zip(prompts, pictures, strict=True):
        rights["held_out" if prompt.held_out else "seen"].append(_right(prompt, picture))
    return {name: round(100 * float(np.mean(right)), 1) for name, right in rights.items()}
