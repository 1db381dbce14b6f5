"""Plants an outlier in the first token, which the real CLIP has and the miniature's lacks.

The UNet is changed too, so that its pictures stay the same: the outlier lies along the direction u
with the least energy in the other tokens, and the weights W that read texts ignore u, except for
the first token x's own component along it. With x' = x + c u and
W' = W - (W u) uᵀ + (u·x / u·x') (W u) uᵀ, W' x' = W x.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stepwise.export.quantize.calibration.sampling import Study
from stepwise.export.quantize.layers import unwrapped

_TEXT = "encoder_hidden_states"
# In SDXL's real text encoders, the first token's maximum is about this multiple of the maximum over
# all other tokens (MixDQ, figure 4).
FACTOR = 50.0
Array = npt.NDArray[Any]


def plant(study: Study, texts: Array) -> Study:
    """Change a study's UNet and prompts; the outlier's direction comes from ``texts``.

    ``texts`` is (prompts, tokens, width).
    """
    first, others = texts[0, 0].astype(np.float64), texts[:, 1:].reshape(-1, texts.shape[-1])
    direction = _quietest(others)
    distance = FACTOR * np.abs(others).max() / np.abs(direction).max()
    outlier = first + distance * direction
    share = (direction @ first) / (direction @ outlier)
    _change(study, direction, share)
    requests = [_with(request, outlier.astype(np.float32)) for request in study.requests]
    return replace(study, requests=tuple(requests))


def _quietest(tokens: Array) -> Array:
    """The direction (width,) with the least energy in the tokens (count, width)."""
    found: Array = np.linalg.eigh(tokens.astype(np.float64).T @ tokens)[1][:, 0]
    return found


def _change(study: Study, direction: Array, share: float) -> None:
    along = torch.from_numpy(direction)
    modules = dict(unwrapped(study.unet).named_modules())
    for layer in study.layers:
        if layer.begins_alike:
            weight = modules[layer.name].get_parameter("weight")
            with torch.no_grad():
                seen = weight.double() @ along
                changed = weight.double() - (1 - share) * torch.outer(seen, along)
                modules[layer.name].register_parameter(
                    "weight", torch.nn.Parameter(changed.float(), requires_grad=False)
                )


def _with(request: Any, first: Array) -> Any:
    rows = []
    for row in request.row_conditioning:
        text = row[_TEXT].copy()
        text[0] = first
        rows.append({**row, _TEXT: text})
    return replace(request, row_conditioning=tuple(rows))
