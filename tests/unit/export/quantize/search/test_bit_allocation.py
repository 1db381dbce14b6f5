"""Allocations, compared with all others for few layers, and timed at the size of SDXL."""

import itertools
import random
import time
from dataclasses import replace

import pytest

from stepwise.export.errors import QuantizationError
from stepwise.export.quantize.layers import Group
from stepwise.export.quantize.search.bit_allocation import (
    Choice,
    allocate,
    largest,
    size,
    smallest,
    sweep,
)

BITS = (4, 8, 16)


def choices(layers, seed, most=4000):
    chance = random.Random(seed)
    drawn = {}
    for number in range(layers):
        weights, scores = chance.randint(8, most), sorted(chance.random() for _ in BITS)
        drawn[f"layer {number}"] = [
            Choice(bits, weights * bits // 8, score)
            for bits, score in zip(BITS, scores, strict=True)
        ]
    return drawn


def grouped(content, quality, most=4000):
    """Choices of both groups, with different layer names."""
    others = {f"other {name}": offered for name, offered in choices(quality, 1, most).items()}
    return {Group.CONTENT: choices(content, 0, most), Group.QUALITY: others}


@pytest.mark.parametrize("seed", range(5))
def test_no_other_allocation_is_better(seed):
    offered = choices(6, seed)
    budget = (smallest(offered) + largest(offered)) // 2
    found = allocate(offered, budget)
    best = max(
        sum(choice.score for choice in combination)
        for combination in itertools.product(*offered.values())
        if sum(choice.size for choice in combination) <= budget
    )
    got = sum(choice.score for choice in found.values())
    print(f"score {got}, the best of {len(BITS) ** 6} is {best}")
    assert size(found) <= budget
    assert got == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_the_unit_of_scores_does_not_matter(unit):
    offered = choices(40, 1)
    budget = (smallest(offered) + largest(offered)) // 2
    scaled = {
        name: [replace(choice, score=unit * choice.score) for choice in rows]
        for name, rows in offered.items()
    }
    best, got = (
        sum(choice.score for choice in allocate(made, budget).values())
        for made in (offered, scaled)
    )
    print(f"score {got / unit}, at least {best}")
    assert got / unit == pytest.approx(best, rel=1e-3)


def test_allocations_for_sdxl_use_the_budget():
    groups = grouped(420, 374, 10**7)
    budget = sum(smallest(group) + largest(group) for group in groups.values()) // 3
    start = time.monotonic()
    found = list(sweep(groups, budget, 5))
    print(f"{(time.monotonic() - start) / 5:.2f} s for 794 layers")
    for allocation in found:
        assert len(allocation) == 794
        share = size(allocation) / budget
        print(f"{100 * share:.3f}% of the budget, floor 99.5%")
        assert 0.995 <= share <= 1


def test_a_sweep_goes_from_one_group_to_the_other():
    groups = grouped(20, 20)
    budget = sum(smallest(group) for group in groups.values()) + 40_000
    sizes = [
        sum(allocation[name].size for name in groups[Group.CONTENT])
        for allocation in sweep(groups, budget, 4)
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_protected_layers_keep_their_only_choice():
    offered = choices(4, 4)
    offered["layer 2"] = [Choice(16, 10, 0.0)]
    assert allocate(offered, smallest(offered))["layer 2"].bits == 16


def test_the_error_of_a_small_budget_names_the_least():
    offered = choices(3, 5)
    least = smallest(offered)
    with pytest.raises(QuantizationError, match=f"3 layers need at least {least:,} bytes where"):
        allocate(offered, least - 1)


def test_a_budget_for_everything_gives_everything():
    groups = grouped(5, 5)
    whole = sum(largest(group) for group in groups.values())
    for allocation in sweep(groups, 2 * whole, 3):
        assert {choice.bits for choice in allocation.values()} == {16}
