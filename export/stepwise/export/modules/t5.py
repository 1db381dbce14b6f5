"""T5's encoder, and a substitute for a missing one."""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import T5EncoderModel

from stepwise.export.modules.exportable import Exportable, random_ids


class StoredT5(T5EncoderModel):
    """A T5 encoder that loads all of its weights in the requested type.

    transformers widens ``wo``, a fifth of the weights, because its products overflow float16. Here
    they are computed in float32 whatever type the weights are stored in.
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
        """Ids that no output depends on."""
        return (random_ids(2, sizes),)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (batch, tokens) to zeros (batch, tokens, width)."""
        return torch.zeros(*ids.shape, self.width)
