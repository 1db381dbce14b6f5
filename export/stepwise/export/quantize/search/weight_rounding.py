"""Rounds weights to integers: 8 bits with a scale per output, 4 bits with one per block of inputs.

Symmetric, so that zero is zero in every runtime. 7 bits are stored as 8, for processors on which
the sum of two products of 8 bits saturates: x86 with AVX2 but without VNNI.
"""

from dataclasses import dataclass
from math import gcd

import torch
from torch import Tensor

# The greatest code, to which scales map the greatest weight, and the least code.
_LARGEST = {4: 7, 7: 63, 8: 127}
_SMALLEST = {4: -8, 7: -63, 8: -127}
# The least scales, for outputs with weights of zero; those of 4 bits are written as float16.
_NORMAL = torch.finfo(torch.float32).smallest_normal
_LEAST = {4: 2.0**-24, 7: _NORMAL, 8: _NORMAL}


@dataclass(frozen=True)
class Codes:
    """A weight (outputs, …) as int8 ``codes`` (outputs, blocks, inputs of a block).

    ``scales`` are float32 (outputs, blocks, 1), ``shape`` is the weight's own. Codes of 4 bits are
    -8 to 7, of 7 bits -63 to 63, of 8 bits -127 to 127.
    """

    codes: Tensor
    scales: Tensor
    shape: torch.Size

    def values(self) -> Tensor:
        """The weight that the codes stand for, in float32."""
        return (self.codes * self.scales).view(self.shape)


def block_of(inputs: int, block: int) -> int:
    """How many of a linear layer's inputs share a scale of 4 bits, at most ``block``.

    It is the greatest divisor of ``block`` that divides the inputs: kernels support only full
    blocks.
    """
    return gcd(block, inputs)


def encode(weight: Tensor, bits: int, block: int = 0) -> Codes:
    """Round a float weight (outputs, …) to ``bits``: 4, 7 or 8.

    ``block`` is how many inputs share a scale, set by the greatest of their weights; 0 is all.
    Scales of 4 bits are rounded to float16.
    """
    blocks = _blocks(weight, block)
    scales = blocks.abs().amax(-1, keepdim=True) / _LARGEST[bits]
    if bits == 4:
        scales = scales.half().float()
    return encode_by(weight, scales.clamp_min(_LEAST[bits]), bits)


def encode_by(weight: Tensor, scales: Tensor, bits: int) -> Codes:
    """Round a weight by known ``scales``."""
    blocks = _blocks(weight, weight[0].numel() // scales.shape[1])
    codes = (blocks / scales).round_().clamp_(_SMALLEST[bits], _LARGEST[bits])
    return Codes(codes.to(torch.int8), scales, weight.shape)


def _blocks(weight: Tensor, block: int) -> Tensor:
    flat = weight.detach().float().flatten(1)
    return flat.view(len(flat), -1, block_of(flat.shape[1], block))
