"""Reads and validates single fields of request tensors. InvalidRequest names the field."""

import math
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from stepwise.description.errors import InvalidRequest

Array = npt.NDArray[Any]


def text(inputs: Mapping[str, Array], name: str, default: str, longest: int) -> str:
    """A text field as UTF-8, at most ``longest`` bytes; ``default`` if it is absent."""
    if name not in inputs:
        return default
    data = inputs[name][0]
    if len(data) > longest:
        raise InvalidRequest(f"{name}: got {len(data)} bytes; at most {longest} are allowed")
    try:
        return str(bytes(data), "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{name}: got bytes that are not UTF-8 (0x{data[error.start]:02x} at position "
            f"{error.start}); send UTF-8 text"
        ) from error


def number(
    inputs: Mapping[str, Array], name: str, default: float, allowed: tuple[float, float]
) -> float:
    """A finite number between the two ends of ``allowed``."""
    if name not in inputs:
        return default
    value, (low, high) = float(inputs[name][0]), allowed
    if not (math.isfinite(value) and low <= value <= high):
        raise InvalidRequest(f"{name}: got {value:g}; allowed are {low:g} to {high:g}")
    return value


def integer(inputs: Mapping[str, Array], name: str, default: int, allowed: tuple[int, int]) -> int:
    """A whole number between the two ends of ``allowed``."""
    return integers(inputs, name, (default,), allowed)[0]


def integers(
    inputs: Mapping[str, Array], name: str, default: tuple[int, ...], allowed: tuple[int, int]
) -> tuple[int, ...]:
    """Whole numbers, each between the two ends of ``allowed``."""
    if name not in inputs:
        return default
    low, high = allowed
    for value in inputs[name].tolist():
        if not low <= value <= high:
            raise InvalidRequest(f"{name}: got {value}; allowed are {low} to {high}")
    return tuple(inputs[name].tolist())
