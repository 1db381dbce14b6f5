"""The model classes of checkpoints, and the module that each is exported as."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from diffusers import (
    AutoencoderKL,
    AutoencoderKLMagvit,
    EasyAnimateTransformer3DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from stepwise.description.spec import Component
from stepwise.export.modules.clip import ClipText
from stepwise.export.modules.easyanimate_transformer import EasyAnimateTransformer
from stepwise.export.modules.exportable import Exportable
from stepwise.export.modules.qwen2_vl import QwenText, StoredQwen
from stepwise.export.modules.sd3_transformer import Sd3Transformer
from stepwise.export.modules.sdxl_unet import SdxlUnet
from stepwise.export.modules.t5 import StoredT5, T5Text
from stepwise.export.modules.vae import VaeDecoder
from stepwise.export.modules.video_vae import VideoDecoder, VideoEncoder


@dataclass(frozen=True)
class Architecture:
    """A model class of a checkpoint, how to load it, and how to wrap it for export.

    ``dtype`` is its library's argument for the type of the weights. If a model holds several
    components, ``parts`` maps their names to their wrappers.
    """

    model: Any
    wrap: Callable[[Any], Exportable]
    dtype: str
    options: Mapping[str, Any]
    parts: Mapping[str, Callable[[Any], Exportable]] = field(default_factory=dict)

    def exported(self, model: Any, component: Component) -> Exportable:
        """A loaded model with the inputs and outputs of ``component``."""
        return self.parts.get(component.name, self.wrap)(model)


# transformers reports weights of the wrong shape by name only if it may ignore them. Attention is
# eager because the exporter cannot make T5's fused attention dynamic in its length, and guards
# CLIP's against rows that are fully masked, which TensorRT for RTX cannot fuse in float16.
_TRANSFORMERS = {
    "ignore_mismatched_sizes": True,
    "attn_implementation": "eager",
}
# transformers renames weights of its older versions, but only for its own classes.
_QWEN = {
    **_TRANSFORMERS,
    "key_mapping": {
        r"^visual": "model.visual",
        r"^model(?!\.(language_model|visual))": "model.language_model",
    },
}

ARCHITECTURES: dict[str, Architecture] = {
    "CLIPTextModel": Architecture(CLIPTextModel, ClipText, "dtype", _TRANSFORMERS),
    "CLIPTextModelWithProjection": Architecture(
        CLIPTextModelWithProjection, ClipText, "dtype", _TRANSFORMERS
    ),
    "T5EncoderModel": Architecture(StoredT5, T5Text, "dtype", _TRANSFORMERS),
    "SD3Transformer2DModel": Architecture(SD3Transformer2DModel, Sd3Transformer, "torch_dtype", {}),
    "UNet2DConditionModel": Architecture(UNet2DConditionModel, SdxlUnet, "torch_dtype", {}),
    "AutoencoderKL": Architecture(AutoencoderKL, VaeDecoder, "torch_dtype", {}),
    "Qwen2VLForConditionalGeneration": Architecture(StoredQwen, QwenText, "dtype", _QWEN),
    "EasyAnimateTransformer3DModel": Architecture(
        EasyAnimateTransformer3DModel, EasyAnimateTransformer, "torch_dtype", {}
    ),
    "AutoencoderKLMagvit": Architecture(
        AutoencoderKLMagvit, VideoDecoder, "torch_dtype", {}, {"vae_encoder": VideoEncoder}
    ),
}
