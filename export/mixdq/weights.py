"""Weights as whole numbers: 8 bits with a scale per output, 4 with one per block of inputs.

Symmetric, so that zero is zero in every runtime.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# The greatest code that a scale is made for, and the least and greatest that are allowed.
_LARGEST = {4: 7, 8: 127}
_SMALLEST = {4: -8, 8: -127}
# Of the scale that holds the greatest weight.
_SHARES = torch.linspace(1.0, 0.5, 26).tolist()


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


def encode(weight: Tensor, bits: int, block: int = 0, *, search: bool = True) -> Codes:
    """Round a float weight (outputs, …) to ``bits``, 4 or 8.

    ``block`` is how many inputs share a scale; 0 is all. The scale is the one with the least
    squared error of the block or, without ``search``, the one that holds its greatest weight.
    """
    blocks = _blocks(weight, block)
    largest = blocks.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    whole = largest / _LARGEST[bits]
    best, least = whole, torch.full_like(whole, torch.inf)
    for share in _SHARES if search else _SHARES[:1]:
        scales = share * whole
        error = (_round(blocks, scales, bits) * scales - blocks).square().sum(-1, keepdim=True)
        best, least = torch.where(error < least, scales, best), torch.minimum(error, least)
    return encode_by(weight, best, bits, block)


def encode_by(weight: Tensor, scales: Tensor, bits: int, block: int = 0) -> Codes:
    """Round a weight by ``scales`` that are known."""
    codes = _round(_blocks(weight, block), scales, bits).to(torch.int8)
    return Codes(codes, scales, weight.shape)


def _blocks(weight: Tensor, block: int) -> Tensor:
    flat = weight.detach().float().flatten(1)
    block = block or flat.shape[1]
    padded = functional.pad(flat, (0, -flat.shape[1] % block))
    return padded.view(len(padded), -1, block)


def _round(blocks: Tensor, scales: Tensor, bits: int) -> Tensor:
    return (blocks / scales).round_().clamp_(_SMALLEST[bits], _LARGEST[bits])
