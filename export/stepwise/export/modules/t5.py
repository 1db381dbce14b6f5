"""T5's encoder, and what stands in for one that is missing."""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import T5EncoderModel

from stepwise.export.modules.exportable import Exportable, random_ids


class StoredT5(T5EncoderModel):
    """A T5 encoder all of whose weights are loaded in the type that is asked for.

    transformers widens ``wo``, a fifth of them, because its products overflow float16. Ours are
    computed in float32 whatever weights are stored in.
    """

    def _get_dtype_plan(self, dtype: torch.dtype) -> dict[str, torch.dtype]:
        return {}


class T5Text(Exportable):
    """A T5 encoder."""

    def __init__(self, model: T5EncoderModel) -> None:
        """Wrap an encoder without a decoder."""
        super().__init__()
        self.model = model

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Random token ids."""
        return (random_ids(self.model.config.vocab_size, sizes),)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (batch, tokens) to the last hidden states (batch, tokens, hidden)."""
        hidden_states: Tensor = self.model(ids).last_hidden_state
        return hidden_states


class ZeroText(Exportable):
    """Stands in for a text encoder that the checkpoint lacks, with zeros as in diffusers."""

    def __init__(self, width: int) -> None:
        """``width`` is that of the denoiser's text input."""
        super().__init__()
        self.width = width

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Ids of which nothing depends."""
        return (random_ids(2, sizes),)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (batch, tokens) to zeros (batch, tokens, width)."""
        return torch.zeros(*ids.shape, self.width)
