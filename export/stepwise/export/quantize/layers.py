"""The layers of a UNet that can be quantized, and MixDQ's prior knowledge of each."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from diffusers import UNet2DConditionModel
from torch import nn

from stepwise.export.errors import QuantizationError


class Group(StrEnum):
    """The metric of a layer's sensitivity (section 3.3): SSIM of pictures, SQNR of outputs."""

    CONTENT = "content"
    QUALITY = "quality"


@dataclass(frozen=True)
class Layer:
    """A linear layer or convolution.

    ``name`` is its dotted path in the UNet and ``shape`` that of its weight, (out, in) or (out, in,
    height, width). If some input channels come from a skip connection (section 3.2), ``split`` is
    the number of channels before them, else None. ``begins_alike`` says whether the first token of
    its input is the same for every prompt (section 3.1).
    """

    name: str
    shape: tuple[int, ...]
    group: Group
    split: int | None = None
    begins_alike: bool = False

    @property
    def is_linear(self) -> bool:
        """Whether it is a matrix product, the only operation with 4-bit kernels."""
        return len(self.shape) == 2


def find(model: nn.Module) -> tuple[Layer, ...]:
    """Every linear layer and convolution of a UNet, in the order of its modules.

    ``model`` may be compiled. Raises QuantizationError for other models.
    """
    unet = unwrapped(model)
    splits = dict(_splits(unet))
    return tuple(
        Layer(
            name,
            tuple(module.weight.shape),
            _group(name),
            splits.get(name),
            name.endswith(("attn2.to_k", "attn2.to_v")),
        )
        for name, module in unet.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    )


def unwrapped(model: nn.Module) -> UNet2DConditionModel:
    """The UNet inside a compiled module; QuantizationError if it is another model."""
    unet = getattr(model, "_orig_mod", model)
    if not isinstance(unet, UNet2DConditionModel):
        raise QuantizationError(
            f"got a {type(unet).__name__}; MixDQ is for UNets, such as those of sdxl_turbo and sdxl"
        )
    return unet


def _group(name: str) -> Group:
    parts = name.split(".")
    return Group.CONTENT if "ff" in parts or "attn2" in parts else Group.QUALITY


def _splits(unet: Any) -> Iterator[tuple[str, int]]:
    """Each shortcut over a concatenated skip connection, and the channels before the skip's."""
    before = unet.mid_block or unet.down_blocks[-1]
    for number, block in enumerate(unet.up_blocks):
        channels = before.resnets[-1].out_channels
        for place, resnet in enumerate(block.resnets):
            if resnet.conv_shortcut is not None:
                yield f"up_blocks.{number}.resnets.{place}.conv_shortcut", channels
            channels = resnet.out_channels
        before = block
