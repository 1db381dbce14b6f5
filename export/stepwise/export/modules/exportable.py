"""The interface of exported modules."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Exportable(nn.Module, ABC):
    """A module with a component's tensors in and out of ``forward``, in the spec's order."""

    @abstractmethod
    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Random inputs; ``sizes`` gives the size of every dynamic axis of the component.

        For a video autoencoder, ``first`` in ``sizes`` says whether a slice begins a video.
        """


def random_ids(vocabulary: int, sizes: Mapping[str, int]) -> Tensor:
    """Token ids (batch, tokens) below ``vocabulary``."""
    return torch.randint(vocabulary, (sizes["batch"], sizes["tokens"]))
