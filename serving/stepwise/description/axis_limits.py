"""The largest sizes of a graph's dynamic axes, which its model's config carries.

Triton lets anybody send tensors to a graph's model, of any size where the config says -1, and a
thousand rows take all of the machine's memory. The server therefore refuses tensors that are larger
than those that the pipeline sends.
"""

from collections.abc import Mapping, Sequence

from stepwise.description.spec import Dim, axis

# The config's parameter: a JSON list of the sizes that are allowed together, by axis, such as
# [{"batch": 16, "height": 80, "width": 48}, {"batch": 16, "height": 48, "width": 80}].
PARAMETER = "largest_sizes"

Dims = Mapping[str, Sequence[Dim]]
Sizes = Mapping[str, int]


def axes(dims: Dims) -> set[str]:
    """The names of the dynamic axes of tensors with these ``dims``."""
    return {axis(dim)[1] for shape in dims.values() for dim in shape if isinstance(dim, str)}


def fits(sizes: Sizes, largest: Sizes) -> bool:
    """Whether no axis is longer than in ``largest``."""
    return all(size <= largest[name] for name, size in sizes.items())


def problem(
    dims: Dims, shapes: Mapping[str, Sequence[int]], largest: Sequence[Sizes]
) -> str | None:
    """A sentence if tensors of these ``shapes`` are too large or do not fit together, else None.

    ``dims`` and ``shapes`` have the same tensors; ``dims`` are the graph's: numbers, axes such as
    ``height``, or multiples such as ``8*height``. An axis has one size in all tensors, at least 1.
    One of ``largest`` must be at least as large in every axis.
    """
    sizes: dict[str, int] = {}
    for tensor, shape in shapes.items():
        for dim, size in zip(dims[tensor], shape, strict=True):
            if isinstance(dim, str):
                times, name = axis(dim)
                own = sizes.setdefault(name, size // times)
                allowed = _allowed(times, max(each[name] for each in largest))
                if size not in allowed:
                    return f"{_got(tensor, shape, dim, size)}; allowed {_words(allowed)}"
                if size != times * own:
                    return f"{_got(tensor, shape, dim, size)}, but {times * own} by other inputs"
    if any(fits(sizes, each) for each in largest):
        return None
    return f"got {_joined(sizes)}; allowed are at most {' or '.join(map(_joined, largest))}"


def _allowed(times: int, largest: int) -> range:
    return range(times, times * largest + 1, times)


def _got(tensor: str, shape: Sequence[int], dim: str, size: int) -> str:
    return f"{tensor}: got {list(shape)}, where {dim} is {size}"


def _words(allowed: range) -> str:
    if len(allowed) == 1:
        return f"is {allowed[0]}"
    multiples = f"multiples of {allowed.step} from " if allowed.step > 1 else ""
    return f"are {multiples}{allowed[0]} to {allowed[-1]}"


def _joined(sizes: Sizes) -> str:
    return ", ".join(f"{name} {size}" for name, size in sizes.items())
