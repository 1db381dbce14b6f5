"""A graph's weights as integers; until the graph is written, only their scales are kept."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from stepwise.export.quantize.graphs.graph_editor import Patch
from stepwise.export.quantize.graphs.layer_nodes import Site
from stepwise.export.quantize.plan import Entry
from stepwise.export.quantize.search.weight_rounding import encode, encode_by


@dataclass(frozen=True)
class Coded:
    """The weight of a site from its input channel ``start`` to ``stop``.

    ``scales`` are float32 (outputs, blocks, 1).
    """

    site: Site
    start: int
    stop: int
    bits: int
    scales: torch.Tensor

    @property
    def block(self) -> int:
        """How many inputs share a scale."""
        return (self.stop - self.start) // self.scales.shape[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """(outputs, inputs) or (outputs, inputs, height, width)."""
        outputs, _, *kernel = self.site.layer.shape
        return (outputs, self.stop - self.start, *kernel)

    def codes(self) -> npt.NDArray[np.int8]:
        """The codes, in the weight's own shape."""
        return self.blocks().reshape(self.shape)

    def initializer(
        self, patch: Patch, name: str, dtype: ir.DataType = ir.DataType.INT8
    ) -> ir.Value:
        """An initializer of the codes in the graph's order of axes, (in, out) if that is turned."""

        def compute() -> npt.NDArray[Any]:
            codes = self.codes().astype(dtype.numpy())
            return codes.T if self.site.is_turned else codes

        shape = self.shape[::-1] if self.site.is_turned else self.shape
        return patch.weight(name, dtype, shape, compute)

    def blocks(self) -> npt.NDArray[np.int8]:
        """The codes (outputs, blocks, inputs of a block)."""
        weight = _part(self.site, self.start, self.stop)
        codes: npt.NDArray[np.int8]
        codes = encode_by(weight, self.scales, self.bits).codes.numpy()
        return codes


def encoded(site: Site, entry: Entry, block: int) -> Iterator[Coded]:
    """A site's weight, in the parts of a split layer if its input is rounded.

    ``block`` is how many inputs of 4-bit weights share a scale.
    """
    splits = [site.layer.split] if site.layer.split and entry.rounds else []
    ends = [0, *splits, site.layer.shape[1]]
    bits = entry.weight_bits
    for start, stop in pairwise(ends):
        scales = encode(_part(site, start, stop), bits, block if bits == 4 else 0).scales
        yield Coded(site, start, stop, bits, scales)


def _part(site: Site, start: int, stop: int) -> torch.Tensor:
    # A copy: mapped files cannot be written to, of which torch would warn.
    return torch.from_numpy(np.array(site.read()[:, start:stop]))
