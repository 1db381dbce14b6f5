"""The batcher step by step, with a manual clock."""

import numpy as np
import pytest

from stepwise.batching.batcher import PROGRESS_PER_SECOND, PROGRESS_SECONDS, WAITING_SECONDS
from stepwise.description.errors import Expired, InvalidRequest, Unavailable
from tests.support.batching import Bench


@pytest.mark.parametrize("running", [True, False], ids=["running", "waiting"])
def test_a_missed_deadline_ends_a_request_and_names_the_limit(bench, running):
    if not running:
        bench.submit(cap=2)
    late = bench.submit(cap=2, deadline=2.0)
    bench.batcher.step()
    bench.now = 2.5
    bench.batcher.step()
    assert isinstance(late.errors[0], Expired)
    assert "within 2000 ms (2500 ms have passed)" in str(late.errors[0])


def test_a_request_past_its_deadline_is_refused(bench):
    bench.now = 5.0
    with pytest.raises(Expired):
        bench.submit(deadline=4.0)
    assert len(bench.batcher) == 0


def test_an_id_in_use_is_refused(bench):
    bench.submit(name="same")
    with pytest.raises(InvalidRequest, match="request id: got 'same'"):
        bench.submit(name="same")
    bench.run()
    assert bench.submit(name="same").summary is None


def test_a_full_queue_refuses_and_stores_nothing():
    bench = Bench(capacity=2)
    bench.submit(num_images=2)
    with pytest.raises(Unavailable, match="queue is full"):
        bench.submit(name="refused")
    bench.run()
    assert bench.submit(name="refused").summary is None


def test_values_that_are_not_finite_fail_only_their_request(bench):
    poisoned = bench.submit(steps=5, value=np.nan)
    good = bench.submit(steps=5, seed=3)
    bench.run()
    assert "not finite at step 1 of 5" in str(poisoned.errors[0])
    alone = Bench()
    expected = alone.submit(steps=5, seed=3)
    alone.run()
    assert np.array_equal(good.latents[0], expected.latents[0])


def test_a_picture_that_cannot_start_fails_only_its_request(bench):
    # Too few numbers: torch draws fewer than 16 with another algorithm, which we do not support.
    good, bad = bench.submit(side=4), bench.submit(side=1, num_images=2)
    bench.run()
    assert good.events[-1].kind == "result"
    assert "at least 16 are needed" in str(bad.errors[0])


def test_previews_are_sent_periodically_and_approach_the_result(bench):
    answers = bench.submit(steps=12, side=32, preview_every=4)
    bench.run()
    assert [e.step for e in answers.events if e.kind == "preview"] == [4, 8]
    assert [preview.shape for preview in answers.previews] == [(4, 8, 8)] * 2
    result = answers.latents[0].reshape(4, 8, 4, 8, 4).mean(axis=(2, 4))
    errors = [np.abs(preview - result).mean() for preview in answers.previews]
    print(f"distance to the result {errors}")
    assert errors[1] < errors[0]


def test_a_request_that_waits_reports_once_a_second(bench):
    bench.submit(steps=100, cap=2)
    waits = bench.submit(steps=1, cap=2, num_images=2)
    for _ in range(95):
        bench.now += 0.05
        bench.batcher.step()
    assert [(event.kind, event.index, event.step) for event in waits.events] == [
        ("progress", 0, 0)
    ] * len(waits.events)
    times = [event.queued_ms / 1000 for event in waits.events]
    print(f"reports after {times} s")
    assert len(times) == 4
    assert min(np.diff([0.0, *times])) >= WAITING_SECONDS
    bench.run()
    assert [event.kind for event in waits.events[-2:]] == ["result", "result"]


@pytest.mark.parametrize("progress", [True, False])
def test_a_request_without_progress_has_silent_events(bench, progress):
    answers = bench.submit(steps=8, progress=progress, preview_every=4)
    while answers.summary is None:
        bench.now += 0.2
        bench.batcher.step()
    silent = {event.kind: event.silent for event in answers.events}
    assert silent == {"progress": not progress, "preview": False, "result": False}


@pytest.mark.parametrize(("pictures", "step_seconds"), [(1, 0.01), (8, 0.01), (8, 0.5), (40, 0.1)])
def test_progress_is_sent_round_robin_and_within_its_budget(pictures, step_seconds):
    bench = Bench()
    bench.step_seconds = step_seconds
    running = [bench.submit(steps=200, seed=seed, cap=100) for seed in range(pictures)]
    for _ in range(150):
        bench.batcher.step()
    seconds = 150 * step_seconds
    told = [len(answers.events) for answers in running]
    wanted = pictures * min(seconds / PROGRESS_SECONDS, 150)
    allowed = min(wanted, PROGRESS_PER_SECOND * seconds)
    print(f"{sum(told)} events for {pictures} in {seconds:.1f} s, {allowed:.0f} allowed; {told}")
    assert 0.6 * allowed <= sum(told) <= allowed + 2 + PROGRESS_PER_SECOND * step_seconds
    assert max(told) - min(told) <= 2


def test_the_summary_has_times_and_the_mean_batch(bench):
    first = bench.submit(steps=2, cap=2)
    bench.now = 1.0
    second = bench.submit(steps=2, cap=2)
    for now in (3.0, 4.0, 5.0, 6.0):
        bench.now = now
        bench.batcher.step()
    assert (first.summary.outcome, first.summary.mean_batch) == ("DONE", 1.0)
    assert (first.summary.queued_ms, first.summary.denoising_ms) == (3000.0, 1000.0)
    assert (second.summary.queued_ms, second.summary.denoising_ms) == (4000.0, 1000.0)


@pytest.mark.parametrize("neighbours", [0, 8])
def test_a_new_request_starts_within_two_steps(bench, neighbours):
    for seed in range(neighbours):
        bench.submit(steps=30, seed=seed, cap=32)
    bench.batcher.step()
    late = bench.submit(steps=1, cap=32)
    steps = 0
    while late.summary is None:
        bench.batcher.step()
        steps += 1
    print(f"first step after {steps} steps, at most 2 are allowed")
    assert steps <= 2


def test_a_finished_video_keeps_its_place_until_it_is_decoded():
    bench = Bench(capacity=1, held=True)
    bench.submit(name="video", frames=5)
    bench.run()
    with pytest.raises(Unavailable, match="queue is full: 1 pictures"):
        bench.submit(frames=5)
    with pytest.raises(InvalidRequest, match="request id: got 'video'"):
        bench.submit(name="video", frames=5)
    bench.batcher.release("video")
    assert bench.submit(name="video", frames=5).summary is None


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("step", range(7))
def test_a_video_whose_decoder_gave_up_at_any_step_frees_its_place(step, cancelled, monkeypatch):
    """The decoder's messages may come while the last step runs."""
    bench, steps = Bench(capacity=1, held=True), []
    predict = bench.batcher._predict

    def give_up():
        if cancelled:
            bench.batcher.cancel("video")
        bench.batcher.release("video")

    def step_once(*inputs):
        if len(steps) == step:
            give_up()
        steps.append(len(inputs))
        return predict(*inputs)

    monkeypatch.setattr(bench.batcher, "_predict", step_once)
    video = bench.submit(name="video", frames=5, steps=6)
    bench.run()
    if step == 6:
        assert bench.batcher.occupied == 1
        give_up()
    assert video.summary is not None
    assert bench.batcher.occupied == 0
    assert bench.submit(name="other", frames=5).summary is None


def test_cancel_returns_false_for_a_finished_video_until_its_release():
    bench = Bench(capacity=2, held=True)
    bench.submit(name="video", frames=5)
    assert bench.batcher.cancel("unknown")
    bench.run()
    assert not bench.batcher.cancel("video")
    bench.batcher.release("video")
    assert bench.submit(name="video", frames=5).summary is None
    assert bench.batcher.cancel("video")


def test_a_failed_video_frees_its_place():
    bench = Bench(capacity=1, held=True)
    bench.submit(frames=5)
    bench.failing = True
    bench.run()
    assert bench.submit(frames=5).summary is None


def test_videos_of_other_steps_and_samplers_get_their_solo_latents(bench):
    asked = [
        {"seed": 1, "steps": 4, "frames": 3},
        {"seed": 2, "steps": 7, "frames": 3, "sampler": "heun", "guidance": 1.0},
        {"seed": 3, "steps": 5, "frames": 3, "sampler": "dpmpp_2m_sde"},
    ]
    alone = []
    for settings in asked:
        alone.append(bench.submit(**settings))
        bench.run()
    together = [bench.submit(**settings) for settings in asked]
    bench.run()
    assert together[0].summary.mean_batch == 3.0
    for one, other in zip(alone, together, strict=True):
        assert one.latents[0].shape == (4, 3, 4, 4)
        difference = np.abs(one.latents[0] - other.latents[0]).max()
        print(f"{difference:.1e}, at most 1e-6")
        assert difference <= 1e-6


def test_an_idle_batcher_keeps_nothing_of_its_requests(bench):
    bench.submit(steps=2, name="a")
    bench.batcher.step()
    assert bench.batcher._conditioning
    bench.run()
    assert (bench.batcher._members, bench.batcher._conditioning) == ([], {})
