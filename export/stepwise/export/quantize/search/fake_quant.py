"""Simulates quantized arithmetic in torch: values are rounded as in a runtime, computed in float.

It shows the loss of quality; only a runtime's graph shows the speed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from stepwise.export.options import FLOAT_BITS
from stepwise.export.quantize.calibration.activation_ranges import Activation, Activations, Range
from stepwise.export.quantize.calibration.bos_token import FirstToken
from stepwise.export.quantize.layers import Layer, unwrapped
from stepwise.export.quantize.plan import Entry
from stepwise.export.quantize.search.weight_rounding import encode

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Rounding:
    """The rounding that all quantized layers share.

    ``symmetric`` activations have zero in the middle. ``block`` is how many inputs share a scale of
    4 bits; 0 is all. ``outputs`` says whether quantized convolutions round their outputs to 8 bits
    too.
    """

    symmetric: bool
    block: int
    outputs: bool


@dataclass(frozen=True)
class Measured:
    """The results of calibration."""

    activations: Activations
    first: FirstToken


@contextmanager
def quantized(
    model: nn.Module,
    layers: Iterable[Layer],
    entries: Mapping[str, Entry],
    measured: Measured,
    rounding: Rounding,
) -> Iterator[None]:
    """Within the block, the layers of a UNet that have ``entries`` compute with those bits.

    A compiled ``model`` runs without its compiled code meanwhile. Weights may have any type and are
    not changed.
    """
    modules = dict(unwrapped(model).named_modules())
    with ExitStack() as stack:
        # Compiled code ignores layers that were replaced later.
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        for layer in layers:
            if layer.name in entries:
                forward = _forward(
                    modules[layer.name], layer, entries[layer.name], measured, rounding
                )
                stack.enter_context(_replaced(modules[layer.name], forward))
        yield


@contextmanager
def _replaced(module: nn.Module, forward: Forward) -> Iterator[None]:
    """Replace the forward of a module within the block; a forward set before is restored."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def _forward(
    module: nn.Module, layer: Layer, entry: Entry, measured: Measured, rounding: Rounding
) -> Forward:
    weight = _weight(module, layer, entry.weight_bits, rounding)
    compute = _operator(module)
    ranges = measured.activations[layer.name]
    is_rounded = entry.activation_bits != FLOAT_BITS
    first = _first(layer, measured.first)

    def forward(inputs: Tensor) -> Tensor:
        rounded = _round_inputs(inputs, layer, ranges, rounding) if is_rounded else inputs
        output = compute(rounded, weight(inputs.dtype))
        if is_rounded and rounding.outputs and not layer.is_linear:
            output = round_to(output, ranges.output, rounding.symmetric)
        return first(inputs, output)

    return forward


def _operator(module: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """The module's operation on an input and a weight, with its own bias."""
    if isinstance(module, nn.Conv2d):
        return lambda inputs, weight: module._conv_forward(inputs, weight, module.bias)
    bias: Tensor | None = vars(module)["_parameters"]["bias"]
    return lambda inputs, weight: functional.linear(inputs, weight, bias)


def _weight(
    module: nn.Module, layer: Layer, bits: int, rounding: Rounding
) -> Callable[[torch.dtype], Tensor]:
    """A function from a type to the layer's weight in it; the weight is kept as small codes."""
    weight = module.get_parameter("weight")
    if bits == FLOAT_BITS:
        return weight.to
    block = rounding.block if bits == 4 else 0
    halves = [encode(half, bits, block) for half in split(weight, layer)]
    return lambda dtype: torch.cat([half.values() for half in halves], dim=1).to(dtype)


def split(values: Tensor, layer: Layer) -> tuple[Tensor, ...]:
    """A weight or an input, divided by the origin of its channels (axis 1)."""
    if layer.split is None:
        return (values,)
    return values[:, : layer.split], values[:, layer.split :]


def _round_inputs(inputs: Tensor, layer: Layer, ranges: Activation, rounding: Rounding) -> Tensor:
    halves = zip(split(inputs, layer), ranges.inputs, strict=True)
    return torch.cat([round_to(half, found, rounding.symmetric) for half, found in halves], dim=1)


def round_to(values: Tensor, found: Range, symmetric: bool) -> Tensor:
    """Round to 8 bits of a range and back; values outside become its ends."""
    scale, zero, *levels = (
        (found.symmetric_step, 0, -127, 127) if symmetric else (found.step, found.zero, 0, 255)
    )
    rounded = torch.fake_quantize_per_tensor_affine(values.float(), scale, zero, *levels)
    return rounded.to(values.dtype)


def _first(layer: Layer, known: FirstToken) -> Callable[[Tensor, Tensor], Tensor]:
    """Inserts the known output in each row that begins with the known first token."""
    if not layer.begins_alike:
        return lambda _inputs, output: output
    embedding = torch.from_numpy(known.embedding)
    result = torch.from_numpy(known.outputs[layer.name])

    def join(inputs: Tensor, output: Tensor) -> Tensor:
        distance = (inputs[:, :1] - embedding.to(inputs)).abs().amax(-1, keepdim=True)
        begun = torch.where(distance <= known.margin, result.to(output), output[:, :1])
        return torch.cat([begun, output[:, 1:]], dim=1)

    return join
