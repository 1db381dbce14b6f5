"""The batcher step by step, with a clock that stands still unless it is told to go on."""

import contextlib
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipelines.errors import Cancelled, Expired, InvalidRequest, ModelFailed, Unavailable
from pipelines.inflight.batcher import (
    PROGRESS_PER_SECOND,
    PROGRESS_SECONDS,
    Batcher,
)
from pipelines.inflight.hangups import ASK_SECONDS, HangUps
from pipelines.inflight.roll import REMEMBER_SECONDS
from tests.unit.pipelines.inflight.build import predict, request


class Bench:
    """A batcher with a clock, and the rows of every call."""

    def __init__(self, capacity=64):
        self.now, self.rows, self.sides, self.failing = 0.0, [], [], False
        self.step_seconds = 0.0
        self.batcher = Batcher(self.predict, capacity, clock=lambda: self.now)

    def predict(self, latents, timesteps, conditioning):
        self.now += self.step_seconds
        self.rows.append(len(latents))
        self.sides.append(latents.shape[-1])
        if self.failing:
            raise ModelFailed("sd3_transformer: out of memory")
        return predict(latents, timesteps, conditioning)

    def submit(self, **settings):
        built, answers = request(arrived=self.now, **settings)
        self.batcher.submit(built)
        return answers

    def run(self):
        while len(self.batcher):
            self.batcher.step()


@pytest.fixture
def bench():
    return Bench()


def test_a_cancelled_request_leaves_before_the_next_step(bench):
    stays, goes = bench.submit(steps=4, name="a"), bench.submit(steps=4, name="b")
    bench.batcher.step()
    bench.batcher.cancel("b")
    bench.run()
    assert bench.rows == [4, 2, 2, 2]
    assert stays.events[-1].kind == "result"
    assert isinstance(goes.errors[0], Cancelled)
    assert goes.summary.outcome == "CANCELLED"


def test_a_cancelled_request_that_waits_never_starts(bench):
    bench.submit(steps=3, cap=2)
    waits = bench.submit(steps=3, cap=2, name="waits")
    bench.batcher.step()
    bench.batcher.cancel("waits")
    bench.run()
    assert bench.rows == [2, 2, 2]
    assert isinstance(waits.errors[0], Cancelled)


def test_a_cancellation_may_come_before_its_request(bench):
    bench.batcher.cancel("early")
    with pytest.raises(Cancelled):
        bench.submit(name="early")
    # It counts for one request only.
    bench.submit(name="early")


def test_an_early_cancellation_is_forgotten_after_a_while(bench):
    bench.batcher.cancel("late")
    bench.now = REMEMBER_SECONDS + 1
    bench.batcher.cancel("another")
    assert bench.submit(name="late").summary is None


def test_callers_that_hung_up_are_found_in_turn(bench):
    gone = set()
    running = [bench.submit(steps=9, hung_up=lambda n=n: n in gone) for n in range(3)]
    hang_ups = HangUps(bench.batcher)
    gone.update({0, 2})
    for _ in range(3):
        hang_ups.ask()
    bench.batcher.step()
    assert [bool(answers.errors) for answers in running] == [True, False, True]
    assert isinstance(running[0].errors[0], Cancelled)
    bench.run()
    hang_ups.ask()


def test_hanging_up_is_noticed_while_steps_run(bench):
    gone = threading.Event()
    answers = bench.submit(steps=9, hung_up=gone.is_set)
    hang_ups = HangUps(bench.batcher)
    hang_ups.start()
    gone.set()
    until = time.monotonic() + 10
    while not answers.errors and time.monotonic() < until:
        time.sleep(ASK_SECONDS)
        bench.batcher.step()
        bench.submit(steps=1)
    hang_ups.close()
    assert isinstance(answers.errors[0], Cancelled)


@pytest.mark.parametrize("running", [True, False], ids=["running", "waiting"])
def test_a_deadline_ends_a_request_and_says_what_was_allowed(bench, running):
    if not running:
        bench.submit(cap=2)
    late = bench.submit(cap=2, deadline=2.0)
    bench.batcher.step()
    bench.now = 2.5
    bench.batcher.step()
    assert isinstance(late.errors[0], Expired)
    assert "within 2000 ms (2500 ms have passed)" in str(late.errors[0])


def test_a_request_that_is_late_already_is_refused(bench):
    bench.now = 5.0
    with pytest.raises(Expired):
        bench.submit(deadline=4.0)
    assert len(bench.batcher) == 0


def test_an_id_in_use_is_refused(bench):
    bench.submit(name="same")
    with pytest.raises(InvalidRequest, match="request id: 'same'"):
        bench.submit(name="same")
    bench.run()
    assert bench.submit(name="same").summary is None


def test_a_full_queue_refuses_and_keeps_nothing():
    bench = Bench(capacity=2)
    bench.submit(num_images=2)
    with pytest.raises(Unavailable, match="queue is full"):
        bench.submit(name="refused")
    bench.run()
    assert bench.submit(name="refused").summary is None


def test_a_request_whose_numbers_are_not_finite_fails_alone(bench):
    poisoned = bench.submit(steps=5, value=np.nan)
    good = bench.submit(steps=5, seed=3)
    bench.run()
    assert "not finite at step 1 of 5" in str(poisoned.errors[0])
    alone = Bench()
    expected = alone.submit(steps=5, seed=3)
    alone.run()
    assert np.array_equal(good.latents[0], expected.latents[0])


def test_a_picture_that_cannot_be_started_fails_alone(bench):
    # Two numbers: torch draws fewer than 16 in another way, and so nothing here does.
    good, bad = bench.submit(side=4), bench.submit(side=1, num_images=2)
    bench.run()
    assert good.events[-1].kind == "result"
    assert "at least 16 are needed" in str(bad.errors[0])


def test_previews_come_every_few_steps_and_head_for_the_result(bench):
    answers = bench.submit(steps=12, side=32, preview_every=4)
    bench.run()
    assert [e.step for e in answers.events if e.kind == "preview"] == [4, 8]
    assert [preview.shape for preview in answers.previews] == [(4, 8, 8)] * 2
    result = answers.latents[0].reshape(4, 8, 4, 8, 4).mean(axis=(2, 4))
    errors = [np.abs(preview - result).mean() for preview in answers.previews]
    print(f"distance to the result {errors}")
    assert errors[1] < errors[0]


@pytest.mark.parametrize(("pictures", "step_seconds"), [(1, 0.01), (8, 0.01), (8, 0.5), (40, 0.1)])
def test_progress_is_told_in_turn_and_within_its_budget(pictures, step_seconds):
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


def test_the_summary_tells_times_and_the_mean_batch(bench):
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
def test_a_request_that_arrives_starts_within_two_steps(bench, neighbours):
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


@hypothesis_settings(max_examples=25, deadline=None)
@given(chance=st.randoms(use_true_random=False))
def test_nobody_starves_in_a_server_that_is_asked_for_too_much(chance):
    bench = Bench(capacity=40)
    victim = None
    for tick in range(400):
        bench.now = float(tick)
        if tick == 5:
            victim = bench.submit(priority=2, client="victim", steps=3, cap=2)
        for _ in range(chance.randint(0, 3)):
            with contextlib.suppress(Unavailable):
                bench.submit(
                    priority=chance.randint(0, 2),
                    client=chance.choice("abc"),
                    side=chance.choice([4, 8, 12]),
                    steps=chance.randint(1, 3),
                    cap=2,
                )
        bench.batcher.step()
        if victim is not None and victim.summary is not None:
            return
    pytest.fail("the request of the lowest priority had no picture after 400 steps")


# Batch caps by latent side.
CAPS = {4: 1, 8: 5, 12: 16}


class Interleavings(RuleBasedStateMachine):
    """Any order of arrivals, cancellations, time, failures and steps."""

    def __init__(self):
        super().__init__()
        self.bench = Bench(capacity=12)
        self.told, self.gone = [], set()
        self.hang_ups = HangUps(self.bench.batcher)

    @rule(
        steps=st.integers(1, 6),
        guidance=st.sampled_from([0.0, 3.0]),
        side=st.sampled_from(sorted(CAPS)),
        num_images=st.integers(1, 3),
        priority=st.integers(0, 2),
        client=st.sampled_from(["", "a", "b"]),
        allowed=st.sampled_from([0.5, 5.0, 1000.0]),
        value=st.sampled_from([0.3, float("nan")]),
        preview_every=st.integers(0, 3),
        name=st.integers(0, 6),
    )
    def submit(self, allowed, name, **settings):
        name, now, number = f"id {name}", self.bench.now, len(self.told)
        built, answers = request(
            name=name,
            arrived=now,
            deadline=now + allowed,
            cap=CAPS[settings["side"]],
            hung_up=lambda: number in self.gone,
            **settings,
        )
        try:
            self.bench.batcher.submit(built)
        except (Unavailable, InvalidRequest, Cancelled):
            return
        self.told.append((built, answers))

    @rule(name=st.integers(0, 6))
    def cancel(self, name):
        self.bench.batcher.cancel(f"id {name}")

    @rule(number=st.integers(0, 20))
    def hang_up(self, number):
        self.gone.add(number)
        self.hang_ups.ask()

    @rule(seconds=st.sampled_from([0.1, 1.0, 50.0]))
    def wait(self, seconds):
        self.bench.now += seconds

    @rule(failing=st.booleans())
    def step(self, failing):
        self.bench.failing = failing
        self.bench.batcher.step()

    @precondition(lambda self: self.bench.rows)
    @invariant()
    def no_batch_is_over_its_cap(self):
        # One picture fits any cap, and with guidance it has two rows.
        assert self.bench.rows[-1] <= max(CAPS[self.bench.sides[-1]], 2)

    @invariant()
    def nobody_is_forgotten(self):
        pictures = sum(
            built.settings.num_images - sum(event.kind == "result" for event in answers.events)
            for built, answers in self.told
            if answers.summary is None
        )
        assert len(self.bench.batcher) == pictures

    def teardown(self):
        self.bench.failing = False
        work = sum(built.settings.num_images * len(built.table) for built, _ in self.told)
        for _ in range(work + 1):
            self.bench.batcher.step()
        assert len(self.bench.batcher) == 0
        for _, answers in self.told:
            # Answers itself refuses a second last answer.
            assert answers.summary is not None
            assert bool(answers.errors) == (answers.summary.outcome != "DONE")


Interleavings.TestCase.settings = hypothesis_settings(
    max_examples=150, stateful_step_count=40, deadline=None
)
TestInterleavings = Interleavings.TestCase
