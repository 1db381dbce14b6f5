"""EasyAnimate's pipelines match the videos of diffusers, stream slices and share the server."""

import math
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import diffusers as library
import numpy as np
import pytest

from benchmarks.harness.diffusers_baseline import Diffusers, psnr
from miniatures.videos import BY_CAPTION, draw
from stepwise.client import Cancelled, Client, InvalidRequest

FLOOR_DB = 40.0
SOLO_FLOOR_DB = 50.0
PROMPT = "a red circle moving left on a white background"
OTHER = "a blue star moving up on a black background"
SIZE = {"num_frames": 17, "height": 48, "width": 48}
# Settings with another name in diffusers.
NAMES = {"frames": "num_frames"}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": math.e}
CASES = [
    {},
    {"negative_prompt": OTHER},
    {"guidance_scale": 1.0},
    {"guidance_scale": 7.5, "guidance_rescale": 0.7},
    {"frames": 1},
    {"frames": 5, "height": 32, "width": 80},
    {"frames": 25, "height": 64},
    {"negative_prompt": "background " * 300},
]
SAMPLERS = {
    "dpmpp_2m": library.DPMSolverMultistepScheduler(**FLOW),
    "unipc": library.UniPCMultistepScheduler(**FLOW),
    "dpmpp_2m_sde": library.DPMSolverMultistepScheduler(**FLOW, algorithm_type="sde-dpmsolver++"),
}


@pytest.fixture(scope="module")
def server(families_server):
    return families_server


@pytest.fixture(scope="module")
def client(server):
    return Client(server.grpc_url)


@pytest.fixture(scope="module")
def diffusers(checkpoints):
    return {name: Diffusers(checkpoints[name]) for name in ("easyanimate", "easyanimate_i2v")}


def drawn(caption):
    """The first and last frame of a caption's reference video."""
    frames = draw(BY_CAPTION[caption], random.Random(1))
    return frames[0], frames[-1]


def reference(peer, prompt, seed, steps, settings, scheduler=None, **images):
    call = {NAMES.get(name, name): value for name, value in settings.items()}
    call = {"guidance_scale": 5.0, **SIZE, **call}
    return peer.video(prompt, seed, steps, scheduler, **images, **call)


def near(served, expected, floor=FLOOR_DB):
    assert served.shape == expected.shape
    closeness = [psnr(*frames) for frames in zip(served, expected, strict=True)]
    print(f"PSNR of the worst of {len(served)} frames {min(closeness):.1f} dB, floor {floor} dB")
    assert min(closeness) >= floor


def asked(settings):
    return {"frames": 17, **settings}


@pytest.mark.parametrize("settings", CASES)
def test_videos_match_diffusers(client, diffusers, settings):
    served = client.video("easyanimate", PROMPT, steps=10, seed=7, **asked(settings))
    near(served.frames, reference(diffusers["easyanimate"], PROMPT, 7, 10, settings))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_other_flow_samplers_match_diffusers(client, diffusers, sampler):
    served = client.video("easyanimate", PROMPT, steps=10, seed=8, frames=17, sampler=sampler)
    scheduler = SAMPLERS[sampler]
    near(served.frames, reference(diffusers["easyanimate"], PROMPT, 8, 10, {}, scheduler))


@pytest.mark.parametrize("settings", [{}, {"frames": 1}, {"frames": 9, "guidance_rescale": 0.5}])
def test_videos_start_from_an_image_as_in_diffusers(client, diffusers, settings):
    start, _ = drawn(PROMPT)
    given = {**asked(settings), "start_image": start}
    served = client.video("easyanimate_i2v", PROMPT, steps=10, seed=9, **given)
    peer = diffusers["easyanimate_i2v"]
    near(served.frames, reference(peer, PROMPT, 9, 10, settings, start=start))


def test_videos_end_with_an_image_as_in_diffusers(client, diffusers):
    start, end = drawn(OTHER)
    given = {"frames": 17, "start_image": start, "end_image": end}
    served = client.video("easyanimate_i2v", OTHER, steps=10, seed=10, **given)
    peer = diffusers["easyanimate_i2v"]
    near(served.frames, reference(peer, OTHER, 10, 10, {}, start=start, end=end))


def test_the_sampler_draws_noise_after_the_image_conditioning(client, diffusers):
    start, _ = drawn(PROMPT)
    given = {"frames": 9, "start_image": start, "sampler": "dpmpp_2m_sde"}
    served = client.video("easyanimate_i2v", PROMPT, steps=10, seed=11, **given)
    due = reference(
        diffusers["easyanimate_i2v"], PROMPT, 11, 10, {"frames": 9}, SAMPLERS["dpmpp_2m_sde"],
        start=start,
    )  # fmt: skip
    near(served.frames, due)


def test_slices_arrive_in_order_and_as_they_are_decoded(client):
    events = list(client.generate("easyanimate", PROMPT, steps=2, frames=49, seed=1))
    slices = [event for event in events if event.kind == "result"]
    assert [event.index for event in slices] == [0, *range(1, 49, 4)]
    assert [len(event.frames) for event in slices] == [1] + [4] * 12
    began = time.monotonic()
    arrived = []
    for event in client.generate("easyanimate", PROMPT, steps=1, frames=145, seed=1):
        if event.kind == "result":
            arrived.append(time.monotonic() - began)
    print(f"first of {len(arrived)} slices after {arrived[0]:.2f} s, last after {arrived[-1]:.2f}")
    # Decoding all slices after the first takes nearly all of the time in between.
    assert arrived[0] < arrived[-1]
    assert len(arrived) == 37


def test_videos_of_different_step_counts_batch_and_give_their_solo_videos(client):
    settings = [
        {"steps": 6, "seed": 1, "sampler": "euler"},
        {"steps": 11, "seed": 2, "sampler": "heun"},
        {"steps": 8, "seed": 3, "sampler": "dpmpp_2m", "guidance_scale": 1.0},
    ]
    alone = [client.video("easyanimate", PROMPT, frames=17, **each) for each in settings]
    with ThreadPoolExecutor(3) as threads:
        together = list(
            threads.map(
                lambda each: client.video("easyanimate", PROMPT, frames=17, **each), settings
            )
        )
    shared = [event.mean_batch for event in together]
    print(f"mean batch {shared}")
    assert max(shared) > 1.2
    for one, other in zip(alone, together, strict=True):
        near(other.frames, one.frames, SOLO_FLOOR_DB)


def test_previews_show_the_first_frame(client):
    events = list(client.generate("easyanimate", PROMPT, steps=6, frames=17, preview_every=2))
    previews = [event.frames for event in events if event.kind == "preview"]
    assert [frames.shape for frames in previews] == [(1, 48, 48, 3)] * 2


def test_pictures_and_short_videos_are_not_starved_by_long_ones(client):
    """An SD3 picture and a one-frame video finish while long videos run."""
    stop, done = threading.Event(), []

    def keep_busy(seed):
        for event in client.generate("easyanimate", PROMPT, steps=40, frames=97, seed=seed):
            done.append(event.kind == "result")
            if stop.is_set():
                return

    with ThreadPoolExecutor(4) as threads:
        for seed in range(3):
            threads.submit(keep_busy, seed)
        time.sleep(1.0)
        short = client.video("easyanimate", PROMPT, steps=10, frames=1, seed=1)
        picture = client.pictures("sd3", "a small red star", steps=10, seed=1)
        finished_first = not any(done)
        stop.set()
    print(f"one frame {short.queued_ms + short.denoising_ms:.0f} ms, picture "
          f"{picture[0].queued_ms + picture[0].denoising_ms:.0f} ms")  # fmt: skip
    assert short.frames.shape == (1, 48, 48, 3)
    assert finished_first, "a long video finished before the short requests"


def test_an_abandoned_video_frees_its_place(client):
    events = client.generate("easyanimate", PROMPT, steps=2, frames=145, seed=1)
    next(event for event in events if event.kind == "result")
    events.close()
    again = client.video("easyanimate", PROMPT, steps=2, frames=5, seed=1)
    assert len(again.frames) == 5


def test_a_video_cancelled_while_decoding_ends(client):
    events, came = client.generate("easyanimate", PROMPT, steps=2, frames=145, seed=1), []

    def cancel_at_the_first_slice():
        for event in events:
            if event.kind == "result":
                came.extend(event.frames)
                events.cancel()

    with pytest.raises(Cancelled):
        cancel_at_the_first_slice()
    print(f"{len(came)} of 145 frames arrived")
    assert 0 < len(came) < 145


def test_videos_decoded_concurrently_are_complete(client):
    def make(seed):
        return client.video("easyanimate", PROMPT, steps=2, frames=33, seed=seed).frames

    with ThreadPoolExecutor(5) as threads:
        together = list(threads.map(make, range(5)))
    for seed in (0, 4):
        near(together[seed], make(seed), SOLO_FLOOR_DB)


def test_the_queue_can_be_filled_with_videos_twice(client):
    for _ in range(2):
        with ThreadPoolExecutor(32) as threads:
            videos = list(
                threads.map(
                    lambda seed: client.video("easyanimate", PROMPT, steps=1, frames=5, seed=seed),
                    range(32),
                )
            )
        assert [len(video.frames) for video in videos] == [5] * 32


@pytest.mark.parametrize(
    ("pipeline", "settings", "sentence"),
    [
        ("easyanimate", {"frames": 10}, "frames: got 10; .*the nearest are 9 and 13"),
        ("easyanimate", {"frames": 0}, "frames: got 0; .*the nearest are 1 and 5"),
        ("easyanimate", {"frames": 200}, "frames: got 200; .*the nearest are 141 and 145"),
        ("easyanimate", {"width": 50}, "width: got 50; .*the nearest is 48"),
        ("easyanimate", {"guidance_rescale": 2.0}, "guidance_rescale: got 2; allowed are 0 to 1"),
        ("easyanimate", {"num_images": 2}, "num_images: easyanimate has no such setting"),
        ("easyanimate_i2v", {}, "start_image: got none"),
    ],
)
def test_an_error_names_the_bad_value_and_allowed_ones(client, pipeline, settings, sentence):
    with pytest.raises(InvalidRequest, match=sentence):
        client.video(pipeline, PROMPT, steps=1, **{"frames": 5, **settings})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"height": 64, "width": 64}, "start_image: got 48x48, but height and width are 64x64"),
        ({"end_image": (32, 48)}, "end_image: got 48x32, but"),
        ({"start_image": (40, 48)}, "start_image's height: got 40; .*the nearest is"),
        ({"end_image": (48, 48), "frames": 1}, "end_image: got one for a video of 1 frame"),
    ],
)
def test_an_error_names_an_image_that_does_not_fit(client, settings, sentence):
    given = {"frames": 5, "start_image": (48, 48), **settings}
    images = {n: np.zeros((*v, 3), np.uint8) for n, v in given.items() if n.endswith("image")}
    with pytest.raises(InvalidRequest, match=sentence):
        client.video("easyanimate_i2v", PROMPT, steps=1, **{**given, **images})
