"""Chooses bit-widths within a budget of bytes (section 3.3) by an integer program.

Content and quality layers are judged by different metrics, and sums of those cannot be compared. So
each group has its own budget, and several divisions of the whole are tried.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from stepwise.export.errors import QuantizationError
from stepwise.export.quantize.layers import Group

# The share of the budget that absorbs the solver's rounding, so that it is never exceeded.
_MARGIN = 1e-6
_OPTIONS = {"mip_rel_gap": 1e-4, "time_limit": 30.0}


@dataclass(frozen=True)
class Choice:
    """A layer's bytes and score at a bit-width; higher scores are better."""

    bits: int
    size: int
    score: float


Choices = Mapping[str, Sequence[Choice]]
Allocation = dict[str, Choice]


def allocate(choices: Choices, budget: int) -> Allocation:
    """One choice for each layer: the greatest sum of scores in at most ``budget`` bytes.

    Raises QuantizationError if even the smallest choices need more.
    """
    least = _least(choices, budget)
    if largest(choices) <= budget:
        return {
            name: max(offered, key=lambda choice: choice.score) for name, offered in choices.items()
        }
    rows = [(name, choice) for name, offered in choices.items() for choice in offered]
    places = {name: place for place, name in enumerate(choices)}
    once = csr_array(
        (np.ones(len(rows)), ([places[name] for name, _ in rows], range(len(rows)))),
        shape=(len(places), len(rows)),
    )
    sizes, scores = (
        np.array([getattr(choice, field) for _, choice in rows]) for field in ("size", "score")
    )
    found = milp(
        # Scaled, as the solver ignores differences of less than 1e-6, which scores may have.
        c=-scores / (np.abs(scores).max() or 1.0),
        constraints=[
            LinearConstraint(once, 1, 1),
            LinearConstraint(sizes[None], ub=max(budget * (1 - _MARGIN), least)),
        ],
        bounds=Bounds(0, 1),
        integrality=np.ones(len(rows)),
        options=_OPTIONS,
    )
    if found.x is None:
        raise QuantizationError(
            f"no bit-widths were found within {budget:,} bytes: {found.message}"
        )
    chosen = [row for row, taken in zip(rows, found.x, strict=True) if taken > 0.5]
    return dict(chosen)


def sweep(groups: Mapping[Group, Choices], budget: int, count: int) -> Iterator[Allocation]:
    """Allocations of all layers within ``budget`` bytes, one for each of ``count`` divisions.

    The first gives content layers their least size and quality layers the rest, the last does the
    opposite. Raises QuantizationError as ``allocate`` does.
    """
    content, quality = (groups[group] for group in (Group.CONTENT, Group.QUALITY))
    _least({**content, **quality}, budget)
    highest = min(largest(content), budget - smallest(quality))
    lowest = min(max(smallest(content), budget - largest(quality)), highest)
    for share in np.linspace(lowest, highest, count):
        first = allocate(content, int(share))
        # Quality layers also get the bytes that content layers leave over.
        yield {**first, **allocate(quality, budget - size(first))}


def _least(choices: Choices, budget: int) -> int:
    """The least bytes of all layers; QuantizationError if the budget is smaller."""
    least = smallest(choices)
    if least > budget:
        raise QuantizationError(
            f"{len(choices)} layers need at least {least:,} bytes where {budget:,} are allowed; "
            "raise the memory budget or protect fewer layers"
        )
    return least


def size(allocation: Mapping[str, Choice]) -> int:
    """Bytes of an allocation."""
    return sum(choice.size for choice in allocation.values())


def smallest(choices: Choices) -> int:
    """Bytes of all layers at their smallest."""
    return sum(min(choice.size for choice in offered) for offered in choices.values())


def largest(choices: Choices) -> int:
    """Bytes of all layers at their largest."""
    return sum(max(choice.size for choice in offered) for offered in choices.values())
