"""Memory-mapped weights in the checkpoint's type, cast to float32 when an operator reads them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only


@dataclass(frozen=True)
class Addition:
    """A LoRA's update of a weight: ``scale`` * ``up`` (outputs, rank, …) @ ``down`` (rank, …)."""

    up: Tensor
    down: Tensor
    scale: float


class Stored(Tensor):
    """A float32 weight that holds ``data``, mapped from a file, and ``additions`` to it.

    Every operator receives its float32 values, which are freed when the operator returns.
    """

    data_: Tensor
    additions: tuple[Addition, ...]

    @staticmethod
    def __new__(cls: Any, data: Tensor, additions: Sequence[Addition] = ()) -> "Stored":
        """``data`` is a float tensor of any type."""
        made: Stored = torch.Tensor._make_wrapper_subclass(cls, data.shape, dtype=torch.float32)
        made.data_, made.additions = data, tuple(additions)
        return made

    def single(self) -> Tensor:
        """The float32 values, a new tensor unless they are stored as float32."""
        values = self.data_.float()
        for addition in self.additions:
            product = addition.up.flatten(1) @ addition.down.flatten(1)
            values = values + addition.scale * product.view_as(values)
        return values

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Stored({list(self.shape)}, {self.data_.dtype})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run ``func`` on the float32 values; a detached weight stays ``Stored``."""
        if func is torch.ops.aten.detach.default:
            return Stored(args[0].data_, args[0].additions)
        args, kwargs = tree_map_only(Stored, Stored.single, (tuple(args), dict(kwargs or {})))
        return func(*args, **kwargs)


def as_stored(model: nn.Module) -> None:
    """Replace a model's float weights that are not float32 by ``Stored`` ones.

    Buffers become float32: they are few and small.
    """
    made: dict[int, nn.Parameter] = {}
    for part in model.modules():
        for name, weight in part.named_parameters(recurse=False):
            if weight.is_floating_point() and weight.dtype != torch.float32:
                kept = nn.Parameter(Stored(weight.data), requires_grad=False)
                part.register_parameter(name, made.setdefault(id(weight), kept))
        for name, buffer in part.named_buffers(recurse=False):
            if buffer.is_floating_point():
                setattr(part, name, buffer.float())


def add(module: nn.Module, addition: Addition) -> None:
    """Add ``addition`` to the ``weight`` of a module without computing the sum."""
    weight = module.get_parameter("weight").detach()
    whole = weight if isinstance(weight, Stored) else Stored(weight)
    added = Stored(whole.data_, (*whole.additions, addition))
    module.register_parameter("weight", nn.Parameter(added, requires_grad=False))


@contextmanager
def faked(model: nn.Module) -> Iterator[None]:
    """Within the block, the weights of ``model`` are float32 tensors with shapes but no data."""
    real = [(part, n, w) for part in model.modules() for n, w in _own(part)]
    made: dict[int, nn.Parameter] = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        for part, name, weight in real:
            fake = nn.Parameter(torch.empty(weight.shape), requires_grad=False)
            part.register_parameter(name, made.setdefault(id(weight), fake))
    try:
        yield
    finally:
        for part, name, weight in real:
            part.register_parameter(name, weight)


def _own(part: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return list(part.named_parameters(recurse=False, remove_duplicate=False))
