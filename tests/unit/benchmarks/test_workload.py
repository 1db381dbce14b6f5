"""Workloads draw the settings that they name, reproducibly."""

import pytest

from benchmarks.commands.batch_caps import suggest
from benchmarks.harness.workload import WORKLOADS, draw, resolutions
from stepwise.description.manifest import Sides

SIDES = Sides(native=64, minimum=32, maximum=96, multiple=16)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_draws_all_settings_that_it_names(name):
    workload = WORKLOADS[name]
    asks = draw(workload, SIDES, 2000, seed=0)
    known = resolutions(SIDES)
    assert {ask.resolution for ask in asks} == {known[r] for r in workload.resolutions}
    assert {ask.settings["sampler"] for ask in asks} == set(workload.samplers)
    steps = [ask.settings["steps"] for ask in asks]
    assert (min(steps), max(steps)) == workload.steps


def test_a_seed_draws_the_same_requests():
    draws = [draw(WORKLOADS["mixed"], SIDES, 50, seed) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    ("milliseconds", "cap"),
    [
        ({1: 10, 2: 10, 4: 10, 8: 10, 16: 10}, 16),
        ({1: 10, 2: 20, 4: 40, 8: 80, 16: 160}, 1),
        ({1: 10, 2: 12, 4: 20, 8: 39, 16: 78}, 4),
    ],
    ids=["rows cost nothing", "rows cost all", "four rows fill the cores"],
)
def test_the_smallest_fast_enough_cap_is_suggested(milliseconds, cap):
    assert suggest(milliseconds) == cap
