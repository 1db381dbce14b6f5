"""Requests share denoising steps on the live server, and batching changes no picture."""

import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.commands.latency import PROMPTS
from benchmarks.harness.diffusers_baseline import psnr

FLOOR_DB = 50.0
STEPS = (40, 10, 31, 18, 36, 14, 27, 22)


def request(client, index, wait=0.0):
    time.sleep(wait)
    return list(client.generate("sd3", PROMPTS[index], steps=STEPS[index], seed=index))


def test_eight_concurrent_requests_give_their_solo_pictures(client):
    solo = [request(client, index) for index in range(len(STEPS))]
    with ThreadPoolExecutor(len(STEPS)) as threads:
        waits = [0.02 * index for index in range(len(STEPS))]
        together = list(threads.map(lambda i: request(client, i, waits[i]), range(len(STEPS))))
    shared = [events[-1].mean_batch for events in together]
    print(f"mean batch {[round(size, 1) for size in shared]}, at least one above 2")
    assert max(shared) > 2
    for events, alone in zip(together, solo, strict=True):
        closeness = psnr(events[-1].image, alone[-1].image)
        print(f"PSNR against its solo run {closeness:.1f} dB, floor {FLOOR_DB} dB")
        assert closeness >= FLOOR_DB


def test_progress_arrives_in_order_and_the_result_last(client):
    events = request(client, 0)
    steps = [event.step for event in events]
    assert len(steps) >= 2
    assert steps == sorted(set(steps))
    assert steps[-1] == STEPS[0]
    assert {event.steps for event in events} == {STEPS[0]}
    assert [event.kind for event in events] == ["progress"] * (len(steps) - 1) + ["result"]
    assert events[-1].image.shape == (64, 64, 3)
    assert all(event.image is None for event in events[:-1])


def test_requests_of_other_sizes_and_guidance_run_concurrently(client):
    settings = [
        {"height": 64, "width": 64},
        {"height": 96, "width": 32},
        {"height": 64, "width": 64, "guidance_scale": 1.0},
        {"height": 32, "width": 96, "num_images": 2},
    ]

    def run(extra):
        return [e.image for e in client.pictures("sd3", PROMPTS[0], steps=10, seed=1, **extra)]

    with ThreadPoolExecutor(len(settings)) as threads:
        together = list(threads.map(run, settings))
    for extra, pictures in zip(settings, together, strict=True):
        for picture, alone in zip(pictures, run(extra), strict=True):
            assert picture.shape == (extra["height"], extra["width"], 3)
            assert psnr(picture, alone) >= FLOOR_DB
