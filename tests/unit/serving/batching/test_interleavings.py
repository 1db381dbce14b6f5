"""Random orders of arrivals, cancellations, clock changes, failures and steps."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stepwise.description.errors import Cancelled, InvalidRequest, Unavailable
from tests.support.batching import Bench, request


@hypothesis_settings(max_examples=25, deadline=None)
@given(chance=st.randoms(use_true_random=False))
def test_no_request_starves_under_overload(chance):
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
    pytest.fail("the request with the lowest priority has no picture after 400 steps")


# Batch caps by latent side.
CAPS = {4: 1, 8: 5, 12: 16}


class Interleavings(RuleBasedStateMachine):
    """Runs the rules in random order and checks the invariants after each."""

    def __init__(self):
        super().__init__()
        self.bench = Bench(capacity=12)
        self.told = []

    @rule(
        steps=st.integers(1, 6),
        guidance=st.sampled_from([0.0, 3.0]),
        side=st.sampled_from(sorted(CAPS)),
        num_images=st.integers(1, 3),
        priority=st.integers(0, 2),
        client=st.sampled_from(["", "a", "b"]),
        peer=st.sampled_from(["", "10.0.0.1"]),
        allowed=st.sampled_from([0.5, 5.0, 1000.0]),
        value=st.sampled_from([0.3, float("nan")]),
        preview_every=st.integers(0, 3),
        name=st.integers(0, 6),
    )
    def submit(self, allowed, name, **settings):
        name, now = f"id {name}", self.bench.now
        built, answers = request(
            name=name,
            arrived=now,
            deadline=now + allowed,
            cap=CAPS[settings["side"]],
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
        # One picture fits any cap, even with the two rows of guidance.
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
            # ``Answers`` asserts that there is only one final response.
            assert answers.summary is not None
            assert bool(answers.errors) == (answers.summary.outcome != "DONE")


Interleavings.TestCase.settings = hypothesis_settings(
    max_examples=150, stateful_step_count=40, deadline=None
)
TestInterleavings = Interleavings.TestCase
