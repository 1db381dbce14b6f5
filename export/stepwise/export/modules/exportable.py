"""What all that is exported has in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Exportable(nn.Module, ABC):
    """A module whose ``forward`` takes and gives a component's tensors, in the spec's order."""

    @abstractmethod
    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Random inputs; ``sizes`` gives every dynamic axis of the component its size.

        Of a video autoencoder, ``first`` among them is whether a slice begins a video.
        """


def random_ids(vocabulary: int, sizes: Mapping[str, int]) -> Tensor:
    """Token ids (batch, tokens) below ``vocabulary``."""
    return torch.randint(vocabulary, (sizes["batch"], sizes["tokens"]))
