"""A plan: the bits of each layer, as a file that people can read, edit and compare.

One line of JSON for each layer, in the order of the UNet's modules.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from stepwise.description.files import UnusableFile, read_json
from stepwise.export.errors import QuantizationError, reason
from stepwise.export.options import FLOAT_BITS
from stepwise.export.quantize.calibration.activation_ranges import Clipping
from stepwise.export.quantize.layers import Layer

WEIGHT_BITS = (4, 7, 8, FLOAT_BITS)
ACTIVATION_BITS = (8, FLOAT_BITS)


@dataclass(frozen=True)
class Entry:
    """Bits of a layer's weights and activations, and the scores that they were chosen by.

    ``clipping`` is how the ranges of its activations are taken from the recording.
    """

    weight_bits: int
    activation_bits: int
    weight_score: float | None = None
    activation_score: float | None = None
    clipping: Clipping = Clipping.MINMAX

    @property
    def rounds(self) -> bool:
        """Whether activations are quantized."""
        return self.activation_bits != FLOAT_BITS


@dataclass(frozen=True)
class Plan:
    """Entries by the names of layers; all weights together take at most ``budget`` bytes.

    ``checkpoint`` is the one that the plan was made for, ``source`` the SHA-256 of its files. Those
    include the text encoders, because their embeddings affect ranges and scores.
    """

    checkpoint: str
    source: str
    budget: int
    layers: Mapping[str, Entry]

    def write(self, path: Path) -> None:
        """Write the file; layers keep their order."""
        head = {"checkpoint": self.checkpoint, "source": self.source, "budget": self.budget}
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
        rows = [
            f"    {json.dumps(name)}: {json.dumps(asdict(entry))}"
            for name, entry in self.layers.items()
        ]
        body = ",\n".join(rows)
        lines.append('  "layers": {\n' + body + "\n  }")
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n")

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """Read a plan that was written or edited; QuantizationError names a mistake in it."""
        try:
            given = read_json(path)
            checkpoint, source, budget, layers = (given[field.name] for field in fields(cls))
            entries = {name: _entry(path, name, entry) for name, entry in layers.items()}
        except QuantizationError:
            raise
        except UnusableFile as error:
            raise QuantizationError(f"{error}; make a new plan") from error
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise QuantizationError(
                f"{path} is not a plan ({type(error).__name__}: {reason(error)}); make a new one"
            ) from error
        return cls(str(checkpoint), str(source), int(budget), entries)


def check(plan: Plan, layers: Iterable[Layer]) -> None:
    """Raise QuantizationError unless a plan has an entry for each of ``layers`` and no other."""
    names = [layer.name for layer in layers]
    unknown = sorted(plan.layers.keys() - set(names))
    missing = [name for name in names if name not in plan.layers]
    for problem, found in (("the model lacks", unknown), ("the plan lacks", missing)):
        if found:
            raise QuantizationError(
                f"the plan was made for another model: the plan has {len(plan.layers)} layers, "
                f"this model {len(names)}, and {problem} {len(found)}: "
                f"{', '.join(found[:3])}{', …' if len(found) > 3 else ''}; make a new plan"
            )


def _entry(path: Path, name: str, given: Mapping[str, Any]) -> Entry:
    known = [field.name for field in fields(Entry)]
    if unknown := sorted(given.keys() - set(known)):
        raise QuantizationError(f"{path}: {name} has {unknown[0]!r}; allowed are {known}")
    entry = Entry(**given)
    for what, got, allowed in (
        ("weight_bits", entry.weight_bits, WEIGHT_BITS),
        ("activation_bits", entry.activation_bits, ACTIVATION_BITS),
        ("clipping", entry.clipping, tuple(Clipping)),
    ):
        if isinstance(got, bool) or got not in allowed:
            raise QuantizationError(
                f"{path}: {name} has {what}={got!r}; allowed are {', '.join(map(str, allowed))}"
            )
    return replace(entry, clipping=Clipping(entry.clipping))
