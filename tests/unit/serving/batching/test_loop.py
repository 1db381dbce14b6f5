import itertools
import threading
from dataclasses import replace

import numpy as np
import pytest

from stepwise.batching.batcher import Batcher
from stepwise.batching.loop import Loop
from stepwise.description.errors import ModelFailed, Unavailable
from tests.support.batching import predict, request

SECONDS = 20


def solo(**settings):
    built, answers = request(**settings)
    loop = Loop(Batcher(predict, capacity=64))
    loop.submit(built)
    loop.close()
    return answers


@pytest.fixture
def gate():
    """A denoiser that blocks until ``open`` is set and records the rows of every call."""

    class Gate:
        def __init__(self):
            self.open, self.entered, self.rows = threading.Event(), threading.Event(), []

        def __call__(self, latents, timesteps, conditioning):
            self.entered.set()
            assert self.open.wait(SECONDS)
            self.rows.append(len(latents))
            return predict(latents, timesteps, conditioning)

    return Gate()


def test_requests_with_different_steps_share_calls_and_get_their_solo_pictures(gate):
    asked = [{"steps": 3 + i, "seed": i, "value": 0.2 * i} for i in range(6)]
    # Each reading advances this clock by one second, so every step sends progress.
    loop = Loop(Batcher(gate, capacity=64, clock=itertools.count().__next__))
    running = [request(**settings) for settings in asked]
    for built, _ in running:
        loop.submit(built)
    gate.open.set()
    loop.close()
    assert max(gate.rows) == 12
    for settings, (_, answers) in zip(asked, running, strict=True):
        assert [event.step for event in answers.events] == list(range(1, settings["steps"] + 1))
        assert answers.events[-1].kind == "result"
        difference = np.abs(answers.latents[0] - solo(**settings).latents[0]).max()
        print(f"difference from solo {difference:.1e}, floor 1e-5")
        assert difference <= 1e-5


def test_a_request_joins_one_step_after_it_arrives(gate):
    loop = Loop(Batcher(gate, capacity=64))
    loop.submit(request(steps=6)[0])
    assert gate.entered.wait(SECONDS)
    late, answers = request(steps=2)
    loop.submit(late)
    gate.open.set()
    assert answers.done.wait(SECONDS)
    loop.close()
    assert gate.rows == [2, 4, 4, 2, 2, 2]
    assert answers.events[-1].mean_batch == 2


def test_guidance_of_one_or_less_takes_one_row(gate):
    gate.open.set()
    loop = Loop(Batcher(gate, capacity=64))
    loop.submit(request(steps=2, guidance=1.0)[0])
    loop.close()
    assert gate.rows == [1, 1]


def test_guidance_moves_away_from_the_negative():
    strong, weak = solo(guidance=8.0).latents[0], solo(guidance=1.5).latents[0]
    assert strong.mean() < weak.mean()


def test_several_images_arrive_one_by_one_with_consecutive_seeds():
    answers = solo(num_images=3, seed=5)
    results = [event for event in answers.events if event.kind == "result"]
    assert [(event.index, event.seed) for event in results] == [(0, 5), (1, 6), (2, 7)]
    for latents, seed in zip(answers.latents, (5, 6, 7), strict=True):
        assert np.abs(latents - solo(seed=seed).latents[0]).max() <= 1e-5


def test_a_failed_call_fails_its_batch_and_the_loop_continues():
    calls = []

    def fails_once(latents, timesteps, conditioning):
        calls.append(len(latents))
        if len(calls) == 2:
            raise ModelFailed("sd3_transformer: out of memory")
        return predict(latents, timesteps, conditioning)

    loop = Loop(Batcher(fails_once, capacity=64))
    first, answers = request(steps=5, num_images=2)
    loop.submit(first)
    assert answers.done.wait(SECONDS)
    assert [str(error) for error in answers.errors] == ["sd3_transformer: out of memory"]
    second, answers = request(steps=2)
    loop.submit(second)
    loop.close()
    assert answers.events[-1].kind == "result"


def test_an_unexpected_exception_fails_the_request():
    loop = Loop(Batcher(lambda *_: np.zeros(3), capacity=64))
    built, answers = request()
    loop.submit(built)
    assert answers.done.wait(SECONDS)
    assert "denoising failed" in str(answers.errors[0])
    loop.close()


def test_a_closed_loop_refuses_requests():
    loop = Loop(Batcher(predict, capacity=64))
    loop.close()
    with pytest.raises(Unavailable, match="stopping"):
        loop.submit(request()[0])


def test_the_death_of_the_thread_fails_all_requests_and_is_reported(gate):
    died = threading.Event()
    loop = Loop(Batcher(gate, capacity=8), died=died.set)
    running, waiting, late = (request(steps=2, cap=2, preview_every=1) for _ in range(3))

    def broken(event, latents, summary):
        raise ZeroDivisionError("no way to tell")

    loop.submit(replace(running[0], send=broken))
    assert gate.entered.wait(SECONDS)
    loop.submit(waiting[0])
    gate.open.set()
    assert died.wait(SECONDS)
    for _, answers in (running, waiting):
        (error,) = answers.errors
        assert isinstance(error, Unavailable)
        assert "no way to tell" in str(error)
    with pytest.raises(Unavailable):
        loop.submit(late[0])
    loop.close()
