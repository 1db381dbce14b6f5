"""Weights as whole numbers: 8 bits with a scale per output, 4 bits with one per block of inputs.

Symmetric, so that zero is zero in every runtime.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# The greatest code that a scale is made for, and the least and greatest that are allowed.
_LARGEST = {4: 7, 8: 127}
_SMALLEST = {4: -8, 8: -127}


@dataclass(frozen=True)
class Codes:
    """A weight (outputs, …) as int8 ``codes`` (outputs, blocks, inputs of a block), zeros behind.

    ``scales`` are float32 (outputs, blocks, 1), ``shape`` is the weight's own. Codes of 4 bits are
    -8 to 7, of 8 bits -127 to 127.
    """

    codes: Tensor
    scales: Tensor
    shape: torch.Size

    def values(self) -> Tensor:
        """The weight that the codes stand for, in float32."""
        blocks = (self.codes * self.scales).flatten(1)
        return blocks[:, : self.shape[1:].numel()].view(self.shape)


def encode(weight: Tensor, bits: int, block: int = 0) -> Codes:
    """Round a float weight (outputs, …) to ``bits``, 4 or 8.

    ``block`` is how many inputs share a scale, which is the one that holds the greatest of their
    weights; 0 is all.
    """
    largest = _blocks(weight, block).abs().amax(-1, keepdim=True)
    smallest = torch.finfo(torch.float32).smallest_normal
    return encode_by(weight, largest.clamp_min(smallest) / _LARGEST[bits], bits, block)


def encode_by(weight: Tensor, scales: Tensor, bits: int, block: int = 0) -> Codes:
    """Round a weight by ``scales`` that are known."""
    codes = _round(_blocks(weight, block), scales, bits).to(torch.int8)
    return Codes(codes, scales, weight.shape)


def _blocks(weight: Tensor, block: int) -> Tensor:
    flat = weight.detach().float().flatten(1)
    block = block or flat.shape[1]
    padded: Tensor = functional.pad(flat, (0, -flat.shape[1] % block))
    return padded.view(len(flat), -1, block)


def _round(blocks: Tensor, scales: Tensor, bits: int) -> Tensor:
    return (blocks / scales).round_().clamp_(_SMALLEST[bits], _LARGEST[bits])
