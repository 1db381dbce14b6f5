"""Full-size checkpoints with random weights.

``python -m miniatures full sd3 --output DIR`` writes one. They make only noise, but need the time,
memory and disk of the real ones. Configs are the published ones; weights are fp16 in diffusers'
shard layout. Writing keeps one shard in memory at a time.
"""

import json
import math
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLMagvit,
    EasyAnimateTransformer3DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    T5Config,
    T5EncoderModel,
)

HERE = Path(__file__).parent
CONFIGS = HERE.parent / "export" / "stepwise" / "export" / "families" / "data"
SHALLOW, NARROW = "easyanimate_shallow", "sdxl_turbo_narrow"
FAMILIES = ("sd3", "sdxl", "sdxl_turbo", "easyanimate", SHALLOW, NARROW)
SHARD_BYTES = 1 << 30
CLASSES = {
    kind.__name__: kind
    for kind in (
        *(AutoencoderKL, SD3Transformer2DModel, UNet2DConditionModel),
        *(AutoencoderKLMagvit, EasyAnimateTransformer3DModel),
        *(CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel),
        Qwen2VLForConditionalGeneration,
    )
}
_CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
_CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 20}
# stabilityai/stable-diffusion-3-medium-diffusers, where it differs from the classes' defaults.
SD3: dict[str, dict[str, Any]] = {
    "text_encoder": {**_CLIP_L, "num_hidden_layers": 12, "projection_dim": 768},
    "text_encoder_2": {
        **_CLIP_G,
        "num_hidden_layers": 32,
        "projection_dim": 1280,
        "hidden_act": "gelu",
    },
    "text_encoder_3": {
        **{"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 24},
        "feed_forward_proj": "gated-gelu",
    },
    "transformer": {
        **{"sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16},
        **{"num_layers": 24, "num_attention_heads": 24, "attention_head_dim": 64},
        **{"joint_attention_dim": 4096, "caption_projection_dim": 1536},
        **{"pooled_projection_dim": 2048, "pos_embed_max_size": 192},
    },
    "vae": {
        **{"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2},
        **{"latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609},
        **{"down_block_types": ["DownEncoderBlock2D"] * 4, "sample_size": 1024},
        **{"up_block_types": ["UpDecoderBlock2D"] * 4, "force_upcast": True},
        **{"use_quant_conv": False, "use_post_quant_conv": False},
    },
}
# EasyAnimate V5.1 7B; its text encoder is Qwen2-VL-7B.
EASYANIMATE: dict[str, dict[str, Any]] = {
    "text_encoder": {
        "text_config": {
            **{"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944},
            **{"num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4},
            **{"rms_norm_eps": 1e-6, "max_window_layers": 28},
            "rope_parameters": {
                **{"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
            },
        },
        "vision_config": {"depth": 32, "embed_dim": 1280, "hidden_size": 3584, "num_heads": 16},
    },
    "transformer": {
        **{"num_layers": 36, "mmdit_layers": 18, "in_channels": 16, "out_channels": 16},
        **{"num_attention_heads": 48, "attention_head_dim": 64, "patch_size": 2},
        **{"time_embed_dim": 512, "text_embed_dim": 3584, "add_norm_text_encoder": True},
        **{"sample_width": 90, "sample_height": 60, "norm_eps": 1e-5},
    },
    # The class's defaults, and a field that the InP pipeline reads.
    "vae": {"cache_mag_vae": True},
}
# The same width with few layers, so that any runtime can hold it.
EASYANIMATE_SHALLOW: dict[str, dict[str, Any]] = {
    "text_encoder": {
        "text_config": {**EASYANIMATE["text_encoder"]["text_config"], "num_hidden_layers": 3},
        "vision_config": {**EASYANIMATE["text_encoder"]["vision_config"], "depth": 1},
    },
    "transformer": {**EASYANIMATE["transformer"], "num_layers": 4, "mmdit_layers": 2},
    "vae": EASYANIMATE["vae"],
}
# SDXL-Turbo's text encoders with a denoiser and a decoder that take little of a picture's time.
SDXL_TURBO_NARROW: dict[str, dict[str, Any]] = {
    "unet": {
        **{"block_out_channels": [64, 96, 128], "attention_head_dim": [2, 3, 4]},
        **{"layers_per_block": 1, "transformer_layers_per_block": [1, 1, 2]},
    },
    "vae": {"block_out_channels": [16, 32, 64, 64], "layers_per_block": 1, "norm_num_groups": 8},
}
_WRITTEN_HERE = {"sd3": SD3, "easyanimate": EASYANIMATE, SHALLOW: EASYANIMATE_SHALLOW}
_CONFIGS = {CLIPTextModel: CLIPTextConfig, CLIPTextModelWithProjection: CLIPTextConfig}
_CONFIGS[T5EncoderModel] = T5Config
_CONFIGS[Qwen2VLForConditionalGeneration] = Qwen2VLConfig


def write(family: str, output: Path) -> None:
    """Write the checkpoint of a family to ``output``, component by component.

    Keeps components that are already complete, so that a stopped run resumes.
    """
    base = _base(family)
    index = json.loads((base / "model_index.json").read_text())
    output.mkdir(parents=True, exist_ok=True)
    for name, listed in index.items():
        if isinstance(listed, list) and listed[1] in CLASSES:
            write_component(config(family, name), CLASSES[listed[1]], output / name)
        elif isinstance(listed, list):
            # Schedulers and tokenizers are config files; CLIP's vocabulary is the real one.
            clip = listed[1] == "CLIPTokenizer"
            source = CONFIGS / "sdxl" / name if clip else base / name
            shutil.copytree(source, output / name, dirs_exist_ok=True)
    shutil.copy(base / "model_index.json", output)


def config(family: str, name: str) -> dict[str, Any]:
    """The published config of a family's component."""
    if family in _WRITTEN_HERE:
        return _WRITTEN_HERE[family][name]
    read: dict[str, Any] = json.loads((_base(family) / name / "config.json").read_text())
    return {**read, **SDXL_TURBO_NARROW.get(name, {})} if family == NARROW else read


def _base(family: str) -> Path:
    """The folder with the index, schedulers and tokenizers."""
    if family in _WRITTEN_HERE:
        return HERE / family.partition("_")[0]
    return CONFIGS / ("sdxl_turbo" if family == NARROW else family)


def build(config: Mapping[str, Any], kind: Any) -> Any:
    """The model of class ``kind`` with this config on torch's meta device, without weights."""
    with torch.device("meta"):
        return kind(_CONFIGS[kind](**config)) if kind in _CONFIGS else kind.from_config(config)


def write_component(config: Mapping[str, Any], kind: Any, output: Path) -> None:
    """Write the config and random weights of a model of class ``kind``, unless they exist."""
    stem = "model" if kind in _CONFIGS else "diffusion_pytorch_model"
    index = output / f"{stem}.safetensors.index.json"
    if index.is_file():
        return
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    model = build(config, kind)
    model.config.save_pretrained(output) if kind in _CONFIGS else model.save_config(output)
    shards = list(_shards(model))
    places: dict[str, str] = {}
    for number, names in enumerate(tqdm(shards, f"{output.name} ({kind.__name__})"), 1):
        file = f"{stem}-{number:05}-of-{len(shards):05}.safetensors"
        tensors = {name: _random(model, name) for name in names}
        save_file(tensors, output / file, {"format": "pt"})
        places |= dict.fromkeys(names, file)
    total = sum(2 * value.numel() for value in model.state_dict().values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": places}, indent=2)
    index.write_text(text)


def _shards(model: nn.Module) -> Iterator[list[str]]:
    """Names of the weights in shards of about ``SHARD_BYTES`` in fp16; tied weights once."""
    names: list[str] = []
    size, seen = 0, set()
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) in seen:
            continue
        seen.add(id(value))
        if names and size + 2 * value.numel() > SHARD_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += 2 * value.numel()
    yield names


def _random(model: nn.Module, name: str) -> Tensor:
    """A random weight with the scale of torch's initialization; norms are identities."""
    value = model.state_dict()[name]
    if name.endswith("bias"):
        return torch.zeros(value.shape, dtype=torch.float16)
    if value.dim() == 1:
        return torch.ones(value.shape, dtype=torch.float16)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    scale = 1 / math.sqrt(3 * value[0].numel())
    return (scale * torch.randn(value.shape, generator=generator)).half()
