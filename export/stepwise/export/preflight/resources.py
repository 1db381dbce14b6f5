"""Estimates an export's memory and disk from headers of weight files, and checks the machine.

A component's weights dominate. They are in memory once: as stored while torch runs, as written
while ONNX Runtime does.
"""

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import psutil

from stepwise.description.spec import Component
from stepwise.export.checkpoint.folder import Checkpoint
from stepwise.export.checkpoint.safetensors_files import Shapes, check_file, stored_as, weights
from stepwise.export.errors import ResourceError
from stepwise.export.families.base import Keep
from stepwise.export.repository.layout import Target

# Python, its libraries, and a graph's activations at the sizes that it is checked at.
_OVERHEAD_BYTES = 2 << 30
_MAPPED = {"F16": 2, "BF16": 2}
_SINGLE_BYTES = 4


@dataclass(frozen=True)
class Cost:
    """The memory and disk that the export of a component needs, in bytes.

    ``stored`` is the size of its weights in memory, in the checkpoint's types; ``written`` is that
    of its graph's weights on disk. ``scratch`` is used on disk until the component is finished.
    """

    component: str
    parameters: int
    stored: int
    written: int
    scratch: int

    @property
    def memory(self) -> int:
        """Peak resident memory."""
        return max(self.stored, self.written) + _OVERHEAD_BYTES


def costs(target: Target, components: Iterable[Component]) -> list[Cost]:
    """The cost of each of ``components``; no weights are read."""
    return [_cost(target, component) for component in components]


def _cost(target: Target, component: Component) -> Cost:
    checkpoint = target.checkpoint
    if component.name in checkpoint.missing:
        return Cost(component.name, 0, 0, 0, 0)
    files = _files(checkpoint, component)
    sizes = {name: prod(shape) for name, shape in _shapes(checkpoint, component, files)}
    parameters = sum(sizes.values())
    stored = parameters * _MAPPED.get(stored_as(files), _SINGLE_BYTES)
    if target.precision == "fp32" and not target.is_quantized(component):
        return Cost(component.name, parameters, stored, _SINGLE_BYTES * parameters, 0)
    keep = target.keep(component)
    single = sum(size for name, size in sizes.items() if _is_kept(name, keep))
    return Cost(component.name, parameters, stored, 2 * (parameters + single), stored)


def _is_kept(weight: str, keep: Keep) -> bool:
    return keep.includes_all(f"model.{weight.rpartition('.')[0]}")


def _files(checkpoint: Checkpoint, component: Component) -> tuple[Path, ...]:
    if checkpoint.file:
        return (checkpoint.file,)
    return weights(checkpoint.folder / component.subfolder).files


def _shapes(
    checkpoint: Checkpoint, component: Component, files: Iterable[Path]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    prefix = checkpoint.layout.prefixes[component.subfolder] if checkpoint.layout else ""
    found: Shapes = {}
    for path in files:
        found |= check_file(path)
    yield from ((name, shape) for name, shape in found.items() if name.startswith(prefix))


def check(target: Target, found: Iterable[Cost]) -> None:
    """Raise ResourceError if an export of these costs does not fit into memory or on disk."""
    most = max(found := list(found), key=lambda cost: cost.memory)
    available = psutil.virtual_memory().available
    if most.memory > available:
        raise ResourceError(
            f"{most.component} needs {_gigabytes(most.memory)} of memory where "
            f"{_gigabytes(available)} are available; end other programs or export on a larger "
            f"machine{_smaller(target)}"
        )
    needed, free = disk(found), shutil.disk_usage(_existing(target.repository)).free
    if needed > free:
        raise ResourceError(
            f"the export needs {_gigabytes(needed)} of disk where {target.repository} has "
            f"{_gigabytes(free)}; make room or give another --repository{_smaller(target)}"
        )


def disk(found: Iterable[Cost]) -> int:
    """Bytes on disk: all graphs, and the largest scratch."""
    found = list(found)
    return sum(cost.written for cost in found) + max(cost.scratch for cost in found)


def _smaller(target: Target) -> str:
    return ", or --precision fp16" if target.precision == "fp32" else ""


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def table(found: Iterable[Cost]) -> str:
    """The costs as text for a terminal."""
    layout = "{:<12} {:>14} {:>11} {:>11} {:>11} {:>11}"
    titles = ("component", "parameters", "stored", "memory", "disk", "scratch")
    lines = [layout.format(*titles)]
    for cost in (found := list(found)):
        sizes = map(_gigabytes, (cost.stored, cost.memory, cost.written, cost.scratch))
        lines.append(layout.format(cost.component, f"{cost.parameters:,}", *sizes))
    memory = _gigabytes(max(cost.memory for cost in found))
    lines.append(f"at most {memory} of memory and {_gigabytes(disk(found))} of disk at once")
    return "\n".join(lines)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
