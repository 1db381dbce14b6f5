"""CLIP's text encoders."""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from stepwise.export.modules.exportable import Exportable, random_ids


class ClipText(Exportable):
    """A CLIP text encoder as SD3 and SDXL use it."""

    def __init__(self, model: CLIPTextModel | CLIPTextModelWithProjection) -> None:
        """Wrap a text encoder with or without a projection."""
        super().__init__()
        self.model = model
        self.projects = isinstance(model, CLIPTextModelWithProjection)

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Random token ids, and numbers of layers to skip."""
        ids = random_ids(self.model.config.vocab_size, sizes)
        return ids, torch.randint(self.model.config.num_hidden_layers, (len(ids), 1))

    def forward(self, ids: Tensor, clip_skip: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Hidden states (batch, tokens, hidden) and, if the model projects, its projection.

        ``ids`` are (batch, tokens), the projection is (batch, pooled). ``clip_skip`` (batch, 1) is
        the number of layers to skip below the last layer but one.
        """
        output = self.model(ids, output_hidden_states=True)
        layers = torch.stack(output.hidden_states, dim=1)
        kept = layers.shape[1] - 2 - clip_skip[:, 0]
        hidden_states = layers[torch.arange(ids.shape[0]), kept]
        return (hidden_states, output.text_embeds) if self.projects else hidden_states
