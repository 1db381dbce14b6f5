"""Stores the ranges of a plan, so that the plan can be followed again without calibration."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stepwise.description.files import read_json
from stepwise.export.quantize.calibration.activation_ranges import Activation, Activations, Range
from stepwise.export.quantize.plan import Entry

FILE = "ranges.json"


def rows(activations: Activations, plan: Mapping[str, Entry], recorded: str) -> dict[str, Any]:
    """A row of JSON for each layer.

    It has the layer's ranges, their clipping, and ``recorded``, the digest of the calibration's
    inputs.
    """
    return {
        name: {"recorded": recorded, "clipping": plan[name].clipping, **asdict(found)}
        for name, found in activations.items()
    }


def read(path: Path, plan: Mapping[str, Entry], recorded: str) -> dict[str, Activation] | None:
    """The ranges in a file; None if the file or a range is missing, or a range does not match."""
    try:
        given = read_json(path)
        right = all(
            (given[name]["recorded"], given[name]["clipping"]) == (recorded, entry.clipping)
            for name, entry in plan.items()
        )
        return {name: _activation(given[name]) for name in plan} if right else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _activation(row: Mapping[str, Any]) -> Activation:
    return Activation(tuple(Range(**each) for each in row["inputs"]), Range(**row["output"]))
