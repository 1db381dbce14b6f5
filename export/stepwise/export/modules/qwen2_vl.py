"""Qwen2-VL as EasyAnimate uses it: a text model without its last layer."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2VLForConditionalGeneration

from stepwise.export.errors import CheckpointError
from stepwise.export.modules.exportable import Exportable, random_ids


class StoredQwen(Qwen2VLForConditionalGeneration):
    """A Qwen2-VL with only the layers that its last hidden states but one depend on.

    Its vision tower, last layer, final norm and head are not loaded.
    """

    _tied_weights_keys: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, config: Any) -> None:
        """Build the model and drop unused modules, which have no weights yet."""
        super().__init__(config)
        text, last = self.model.language_model, config.text_config.num_hidden_layers - 1
        if text.has_sliding_layers:
            raise CheckpointError(
                "the text encoder has use_sliding_window=True; allowed is False, where tokens "
                "attend to all before them"
            )
        self.model.visual = self.lm_head = text.norm = nn.Identity()
        text.layers = text.layers[:last]
        self.all_tied_weights_keys = {}
        self._keys_to_ignore_on_load_unexpected = {
            *(r"(^|\.)visual\.", r"^lm_head\.", r"^model\.(language_model\.)?norm\."),
            rf"\.layers\.{last}\.",
        }


class QwenText(Exportable):
    """A Qwen2-VL text encoder."""

    def __init__(self, model: StoredQwen) -> None:
        """Wrap an encoder."""
        super().__init__()
        self.model = model.model.language_model

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Random token ids and a mask; all rows but the first end in padding."""
        ids = random_ids(self.model.config.vocab_size, sizes)
        lengths = ids.shape[1] - torch.arange(len(ids))[:, None] % ids.shape[1]
        return ids, (torch.arange(ids.shape[1]) < lengths).long()

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Ids (batch, tokens) to the last hidden states but one (batch, tokens, hidden).

        ``attention_mask`` is 1 for tokens and 0 for the padding after them. Positions include the
        padding, as in transformers for a prompt without pictures.
        """
        places = torch.arange(ids.shape[1])
        seen = (places[:, None] >= places) & attention_mask.bool()[:, None, None]
        mask = torch.where(seen, 0.0, torch.finfo(torch.float32).min)
        hidden_states: Tensor = self.model(
            ids, attention_mask={"full_attention": mask}, use_cache=False
        ).last_hidden_state
        return hidden_states
