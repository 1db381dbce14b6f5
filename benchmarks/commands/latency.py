"""Pictures per second: served, in one process without Triton, and diffusers in eager torch.

All run in turns on the same cores, round after round; results are medians over rounds. First one
picture at a time, then eight: the server gets eight concurrent requests, diffusers makes them one
after another and as one batch.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.harness.diffusers_baseline import Diffusers
from benchmarks.harness.tasks import TASKS, Task
from stepwise.client import Client
from stepwise.description.manifest import Manifest
from stepwise.local import LocalPipeline
from stepwise.server.process import Server

ROUNDS = 7
# Short tasks repeat until they reach this many steps, and are timed together.
STEPS_A_ROUND = 20
AT_ONCE = 8
PROMPTS = [
    f"a large {colour} {shape} in the {place} on a white background"
    for colour, shape, place in (
        ("red", "star", "top left"),
        ("green", "circle", "center"),
        ("blue", "square", "top right"),
        ("yellow", "triangle", "bottom left"),
        ("purple", "star", "bottom right"),
        ("orange", "circle", "top left"),
        ("red", "square", "center"),
        ("green", "triangle", "bottom right"),
    )
]
SEEDS = list(range(AT_ONCE))

Ways = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Bench:
    """The measured variants: a server's client, its graphs without Triton, and diffusers."""

    name: str
    manifest: Manifest
    client: Client
    bare: LocalPipeline
    diffusers: Diffusers
    threads: ThreadPoolExecutor

    def ways(self, task: Task) -> Ways:
        """The same work in each way, for one picture or ``AT_ONCE`` pictures."""
        settings = task.settings(self.manifest)

        def served(index: int) -> object:
            asked = {"steps": task.steps, "seed": SEEDS[index], **settings}
            return self.client.pictures(self.name, PROMPTS[index], **asked)

        def in_process() -> object:
            return self.bare.generate(PROMPTS[0], steps=task.steps, seed=SEEDS[0], **settings)[0]

        def diffusers(*indices: int) -> object:
            prompts, seeds = [PROMPTS[i] for i in indices], [SEEDS[i] for i in indices]
            return self.diffusers.pictures(prompts, seeds, task.steps, **settings)

        everyone = range(AT_ONCE)
        return {
            "served_1": lambda: served(0),
            "in_process_1": in_process,
            "diffusers_1": lambda: diffusers(0),
            "served_8": lambda: list(self.threads.map(served, everyone)),
            "diffusers_8_serial": lambda: [diffusers(index) for index in everyone],
            "diffusers_8_batch": lambda: diffusers(*everyone),
        }


def measure(
    server: Server,
    checkpoint: Path,
    name: str,
    rounds: int = ROUNDS,
    steps_a_round: int = STEPS_A_ROUND,
) -> dict[str, Any]:
    """Medians and their ratios, for each number of steps in the family's tasks."""
    repository = server.settings.repository
    manifest = Manifest.read(repository / name)
    diffusers = Diffusers(checkpoint, manifest.tokens.get("t5"))
    bare = LocalPipeline(repository, name)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        bench = Bench(name, manifest, Client(server.grpc_url), bare, diffusers, threads)
        return {
            "rounds": rounds,
            "by_steps": {
                str(task.steps): _figures(
                    task, _medians(bench.ways(task), rounds, max(1, steps_a_round // task.steps))
                )
                for task in TASKS[manifest.family].speed
            },
        }


def _medians(ways: Ways, rounds: int, repeats: int) -> dict[str, float]:
    """Median seconds of each way over rounds in turns, after one warm-up round."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in tqdm(range(rounds + 1), "rounds"):
        for way, run in ways.items():
            started = time.perf_counter()
            for _ in range(repeats):
                run()
            if number:
                seconds[way].append((time.perf_counter() - started) / repeats)
    return {way: statistics.median(values) for way, values in seconds.items()}


def _figures(task: Task, median: Mapping[str, float]) -> dict[str, Any]:
    per_picture = {
        way: seconds / (AT_ONCE if "_8" in way else 1) for way, seconds in median.items()
    }
    return {
        "guidance_scale": task.guidance_scale,
        "pictures_per_second": {way: round(1 / each, 3) for way, each in per_picture.items()},
        "seconds_per_picture": {way: round(each, 4) for way, each in per_picture.items()},
        "milliseconds_per_step_served": round(1000 * median["served_1"] / task.steps, 2),
        "milliseconds_per_step_in_process": round(1000 * median["in_process_1"] / task.steps, 2),
        "overhead_of_triton": round(median["served_1"] / median["in_process_1"], 3),
        "speedup_over_diffusers_at_1": round(median["diffusers_1"] / median["served_1"], 2),
        "speedup_over_diffusers_serial_at_8": round(
            median["diffusers_8_serial"] / median["served_8"], 2
        ),
        "speedup_over_diffusers_batch_at_8": round(
            median["diffusers_8_batch"] / median["served_8"], 2
        ),
    }
