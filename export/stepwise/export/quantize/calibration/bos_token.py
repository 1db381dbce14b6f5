"""The first token of a text, which is the same for every prompt (section 3.1).

CLIP is causal: what it makes of the first token cannot depend on those behind. In real checkpoints
that embedding is a hundred times as large as all others, and a range that holds it tells nothing
else apart. What layers make of it is therefore computed once, in full precision.
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
# Largest difference between prompts, relative to the largest value: what float16 encoders round.
TOLERANCE = 2e-3


@dataclass(frozen=True)
class FirstToken:
    """The first token's ``embedding`` (width,), and what layers make of it, (outputs,) by name.

    A row of a batch whose first token is another one, such as the zeros of an absent negative
    prompt or an earlier layer of CLIP, is not what ``outputs`` are for.
    """

    embedding: Float32
    outputs: Mapping[str, Float32]

    @property
    def margin(self) -> float:
        """How far a first token may be from ``embedding`` to be the same, in any value."""
        return TOLERANCE * float(np.abs(self.embedding).max())


def first_token(model: nn.Module, layers: Iterable[Layer], texts: npt.NDArray[Any]) -> FirstToken:
    """Run the first token through every layer that begins alike.

    ``texts`` are what the UNet is given for several prompts, (prompts, tokens, width). It is made
    anew from them each time, so it always belongs to the text encoders. Raises QuantizationError if
    first tokens are not the same.
    """
    embedding = np.asarray(texts[0, 0], np.float32)
    margin = FirstToken(embedding, {}).margin
    distances = np.abs(texts[:, 0].astype(np.float32) - embedding).max(axis=1)
    if (distances > margin).any():
        raise QuantizationError(
            f"the first token of prompt {int(np.argmax(distances)) + 1} is embedded as another one "
            f"than the first prompt's, by up to {distances.max():.3g} where {margin:.3g} is "
            "allowed; MixDQ needs text encoders in which it depends on nothing else, as in CLIP"
        )
    modules = dict(unwrapped(model).named_modules())
    outputs = {
        layer.name: _output(modules[layer.name], embedding)
        for layer in layers
        if layer.begins_alike
    }
    return FirstToken(embedding, outputs)


def _output(module: nn.Module, embedding: Float32) -> Float32:
    """In float32 whatever the weights are stored in."""
    weight, bias = module.get_parameter("weight"), getattr(module, "bias", None)
    with torch.inference_mode():
        output = weight.float() @ torch.from_numpy(embedding)
        found: Float32 = (output if bias is None else output + bias.float()).cpu().numpy()
    return found
