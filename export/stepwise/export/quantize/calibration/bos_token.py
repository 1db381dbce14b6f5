"""The first token of a text, which is the same for every prompt (section 3.1).

CLIP is causal: the embedding of the first token cannot depend on later ones. In real checkpoints it
is a hundred times as large as all others, so a range that holds it leaves no resolution for them.
The layers' outputs for it are therefore computed once, in full precision.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from stepwise.export.errors import QuantizationError
from stepwise.export.quantize.layers import Layer, unwrapped

Float32 = npt.NDArray[np.float32]
# Largest difference between prompts, relative to the largest value: float16 encoders round.
TOLERANCE = 2e-3


@dataclass(frozen=True)
class FirstToken:
    """The first token's ``embedding`` (width,), and the layers' outputs for it, (outputs,) by name.

    ``outputs`` are not for rows of a batch with another first token, such as the zeros of an absent
    negative prompt or an earlier layer of CLIP.
    """

    embedding: Float32
    outputs: Mapping[str, Float32]

    @property
    def margin(self) -> float:
        """The greatest difference in a value between two embeddings of the same first token."""
        return TOLERANCE * float(np.abs(self.embedding).max())


def first_token(model: nn.Module, layers: Iterable[Layer], texts: npt.NDArray[Any]) -> FirstToken:
    """Run the first token through every layer with ``begins_alike``.

    ``texts`` are the embeddings of several prompts, (prompts, tokens, width). The token is taken
    from them each time, so it always belongs to the text encoders. Raises QuantizationError if
    first tokens differ.
    """
    embedding = np.asarray(texts[0, 0], np.float32)
    margin = FirstToken(embedding, {}).margin
    distances = np.abs(texts[:, 0].astype(np.float32) - embedding).max(axis=1)
    if (distances > margin).any():
        raise QuantizationError(
            f"the first token of prompt {int(np.argmax(distances)) + 1} has another embedding than "
            f"the first prompt's, by up to {distances.max():.3g} where {margin:.3g} is allowed; "
            "MixDQ needs text encoders in which it depends on no other token, as in CLIP"
        )
    modules = dict(unwrapped(model).named_modules())
    outputs = {
        layer.name: _output(modules[layer.name], embedding)
        for layer in layers
        if layer.begins_alike
    }
    return FirstToken(embedding, outputs)


def _output(module: nn.Module, embedding: Float32) -> Float32:
    """The layer's output in float32, whatever the type of its weights."""
    weight, bias = module.get_parameter("weight"), getattr(module, "bias", None)
    with torch.inference_mode():
        output = weight.float() @ torch.from_numpy(embedding)
        found: Float32 = (output if bias is None else output + bias.float()).cpu().numpy()
    return found
