"""An untrained SDXL checkpoint of the miniature's size, in the diffusers and original layouts.

Original names come from the modules of https://github.com/Stability-AI/generative-models, not from
diffusers' conversion, because that conversion is under test.
"""

import re
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import nn

from miniatures import sdxl

State = dict[str, torch.Tensor]
WEIGHTS = {
    "text_encoder": "model.safetensors",
    "text_encoder_2": "model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}
# The miniature's UNet has one layer in each of three levels.
LAYERS = 1
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
MIDDLE = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}
LEVELS = 3
VAE = {
    r"mid_block\.resnets\.": "mid.block_",
    r"mid_block\.attentions\.0\.group_norm": "mid.attn_1.norm",
    r"mid_block\.attentions\.0\.to_out\.0": "mid.attn_1.proj_out",
    r"mid_block\.attentions\.0\.to_": "mid.attn_1.",
    r"(down|up)_blocks\.(\d)\.(down|up)samplers\.0": r"\1.\2.\3sample",
    r"(down|up)_blocks\.(\d)\.resnets": r"\1.\2.block",
    r"conv_shortcut": "nin_shortcut",
    r"conv_norm_out": "norm_out",
}
OPEN_CLIP = {
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.final_layer_norm": "ln_final",
    "text_model.encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "fc1": "c_fc",
    "fc2": "c_proj",
    "self_attn": "attn",
    "q_proj.": "in_proj_",
}


def write(folder: Path) -> Path:
    """Write a checkpoint in the diffusers layout, fp16, without weights that are zero by design."""
    torch.manual_seed(0)
    model = sdxl.Sdxl()
    # SDXL's autoencoder has attention; the miniature's does not.
    autoencoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * LEVELS,
        up_block_types=("UpDecoderBlock2D",) * LEVELS,
        block_out_channels=(8, 16, 24),
        norm_num_groups=4,
        latent_channels=sdxl.LATENT_CHANNELS,
    )
    for module in (model, autoencoder):
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.05)
    autoencoder.half().save_pretrained(folder / "vae")
    sdxl.save(model, folder)
    return folder


def unet_name(module: str) -> str:
    """A module's name in the original UNet."""
    if module in ENDS:
        return ENDS[module]
    side, *rest = module.split(".")
    if side == "mid_block":
        kind, head, rest = rest[0], f"middle_block.{MIDDLE['.'.join(rest[:2])]}", rest[2:]
    else:
        block, kind, layer = int(rest[0]), rest[1], int(rest[2])
        first = block * (LAYERS + 1)
        if kind == "downsamplers":
            return f"input_blocks.{first + LAYERS + 1}.0.op"
        if kind == "upsamplers":  # after attention, which the last level lacks
            return f"output_blocks.{first + LAYERS}.{2 if block < 2 else 1}.conv"
        number = first + layer + (side == "down_blocks")
        name = "input_blocks" if side == "down_blocks" else "output_blocks"
        head, rest = f"{name}.{number}.{int(kind == 'attentions')}", rest[3:]
    names = RESNET if kind == "resnets" else {}
    return ".".join([head, *(names.get(part, part) for part in rest)])


def _unet(state: State) -> State:
    parts = {name: name.rpartition(".") for name in state}
    return {f"{unet_name(parts[name][0])}.{parts[name][2]}": state[name] for name in state}


def _vae(state: State) -> State:
    renamed = {}
    for name, value in state.items():
        attention = "attentions" in name and not name.endswith("bias") and value.dim() == 2
        for old, new in VAE.items():
            name = re.sub(old, new, name)
        name = re.sub(r"up\.(\d)", lambda match: f"up.{LEVELS - 1 - int(match[1])}", name)
        name = re.sub(r"block_(\d)", lambda match: f"block_{int(match[1]) + 1}", name)
        renamed[name] = value[:, :, None, None] if attention else value
    return renamed


def _clip_l(state: State) -> State:
    return {
        f"text_model.{name.removeprefix('text_model.')}": value for name, value in state.items()
    }


def _clip_g(state: State) -> State:
    renamed = {}
    for name, value in state.items():
        if name.endswith(("k_proj.weight", "k_proj.bias", "v_proj.weight", "v_proj.bias")):
            continue
        if ".q_proj." in name:
            value = torch.cat([state[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"])
        for old, new in OPEN_CLIP.items():
            name = name.replace(old, new)
        renamed[name] = value
    renamed["text_projection"] = renamed.pop("text_projection.weight").T
    return renamed


LAYOUT = {
    "text_encoder": ("conditioner.embedders.0.transformer.", _clip_l),
    "text_encoder_2": ("conditioner.embedders.1.model.", _clip_g),
    "unet": ("model.diffusion_model.", _unet),
    "vae": ("first_stage_model.", _vae),
}
# Published and merged files contain these too.
EXTRAS = {
    "conditioner.embedders.0.transformer.text_model.embeddings.position_ids": torch.arange(77),
    "conditioner.embedders.1.model.logit_scale": torch.tensor(4.6),
    "denoiser.sigmas": torch.ones(1000),
}


def state(folder: Path) -> State:
    """All weights of a diffusers folder by their original names."""
    named = dict(EXTRAS)
    for subfolder, (prefix, rename) in LAYOUT.items():
        loaded = load_file(folder / subfolder / WEIGHTS[subfolder])
        named |= {prefix + name: value for name, value in rename(loaded).items()}
    return named


def write_original(folder: Path, file: Path, dtype: torch.dtype = torch.float16) -> Path:
    """Write the checkpoint in ``folder`` as one file of ``dtype``."""
    tensors = {n: v.to(dtype) if v.is_floating_point() else v for n, v in state(folder).items()}
    save_file({name: value.contiguous() for name, value in tensors.items()}, file)
    return file
