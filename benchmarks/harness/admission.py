"""Measures the time to the first step of a request that arrives while eight others run."""

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.harness.load_generator import Outcome, Send, closed_loop, open_loop
from benchmarks.harness.workload import PROMPTS, Ask
from stepwise.description.manifest import Sides

OTHERS = 8
STEPS = 60
# The ninth request's arrival, when all others are active and none is near its end.
SECONDS = 0.6
# Without guidance nine pictures fit into one call, so the ninth need not wait for a place.
GUIDANCE_SCALE = 1.0


async def measure(send: Send, sides: Sides, rounds: int) -> dict[str, Any]:
    """Milliseconds and ticks (denoiser calls) from arrival at the server to the first step.

    They include validating and encoding the prompt; on an idle server, nothing else delays the
    first step.
    """
    waits, idle, ticks = [], [], []
    ask = Ask(PROMPTS[0], (sides.native, sides.native), _settings(STEPS))
    late = Ask(PROMPTS[1], ask.resolution, _settings(OTHERS))
    for _ in range(rounds):
        idle += [o.marks[0].queued_ms for o in await closed_loop(send, [late], lanes=1)]
        run = await open_loop(send, [ask] * OTHERS + [late], [0.0] * OTHERS + [SECONDS])
        ticks.append(_tick_ms(run[:OTHERS], SECONDS))
        waits.append(run[-1].marks[0].queued_ms)
    spent = [wait / tick for wait, tick in zip(waits, ticks, strict=True)]
    return {
        "others": OTHERS,
        "tick_ms": round(statistics.median(ticks), 1),
        "first_step_after_ms": round(statistics.median(waits), 1),
        "first_step_after_ticks": round(statistics.median(spent), 2),
        "first_step_after_ms_when_idle": round(statistics.median(idle), 1),
    }


def _settings(steps: int) -> dict[str, float]:
    return {"steps": steps, "guidance_scale": GUIDANCE_SCALE, "seed": 1}


def _tick_ms(outcomes: Sequence[Outcome], since: float) -> float:
    """Median milliseconds per step of pictures that run together.

    Progress events rotate over the pictures, so some pictures have fewer than two marks.
    """
    times = []
    for outcome in outcomes:
        marks = [mark for mark in outcome.marks if mark.at >= since]
        if len(marks) > 1:
            times.append(1000 * (marks[-1].at - marks[0].at) / (marks[-1].step - marks[0].step))
    return statistics.median(times)
