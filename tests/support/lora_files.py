"""LoRA files of every layout, with random weights for all layers of an SDXL checkpoint."""

import json

import torch
from safetensors.torch import save_file

from tests.support import originals

RANK, ALPHA = 3, 1.5
TEXTS = {"text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
ATTENTION = (".to_q", ".to_k", ".to_v", ".to_out.0", ".q_proj", ".k_proj", ".v_proj", ".out_proj")


def draw_layers(models):
    """Random down and up weights for every layer that a trainer may train."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator) / 10

    drawn = {}
    for subfolder, model in models.items():
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
                outputs, *inputs = module.weight.shape
                ends = (1,) * (len(inputs) - 1)
                drawn[subfolder, name] = draw(RANK, *inputs), draw(outputs, RANK, *ends)
    return drawn


def text_name(subfolder, name):
    """The layer's name in transformers up to 5.5, which all LoRA files use."""
    whole = subfolder == "text_encoder_2" or name.startswith("text_model.")
    return name if whole else f"text_model.{name}"


def kohya(layers, unet_name):
    tensors = {}
    for (subfolder, name), (down, up) in layers.items():
        named = unet_name(name) if subfolder == "unet" else text_name(subfolder, name)
        base = f"{TEXTS.get(subfolder, 'lora_unet')}_{named.replace('.', '_')}"
        tensors[f"{base}.lora_down.weight"], tensors[f"{base}.lora_up.weight"] = down, up
        tensors[f"{base}.alpha"] = torch.tensor(ALPHA)
    return tensors, None


def dotted(layers, *ends):
    tensors = {}
    for (subfolder, name), pair in layers.items():
        named = name if subfolder == "unet" else text_name(subfolder, name)
        for end, value in zip(ends, pair, strict=True):
            tensors[f"{subfolder}.{named}{end}.weight"] = value
    return tensors


def peft(layers):
    settings = {}
    for subfolder in ("unet", *TEXTS):
        settings |= {f"{subfolder}.r": 99, f"{subfolder}.lora_alpha": ALPHA}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(settings)}
    return dotted(layers, ".lora_A", ".lora_B"), metadata


def with_alphas(tensors, down):
    named = [name.removesuffix(down) for name in tensors if name.endswith(down)]
    return tensors | {f"{name}.alpha": torch.tensor(ALPHA) for name in named}, None


def diffusers(layers):
    return with_alphas(dotted(layers, ".lora.down", ".lora.up"), ".lora.down.weight")


def processors(layers):
    """diffusers' first layout, which covers only attention."""
    tensors = {}
    for name, value in dotted(layers, "_lora.down", "_lora.up").items():
        for old, new in (("to_out.0", "to_out"), ("q_proj", "to_q"), ("k_proj", "to_k"),
                         ("v_proj", "to_v"), ("out_proj", "to_out")):  # fmt: skip
            name = name.replace(f".{old}_lora", f".{new}_lora")
        for part in ("attn1", "attn2"):
            name = name.replace(f".{part}.", f".{part}.processor.")
        tensors[name] = value
    return with_alphas(tensors, "_lora.down.weight")


LAYOUTS = {
    "kohya": lambda layers: kohya(layers, originals.unet_name),
    "kohya with diffusers' blocks": lambda layers: kohya(layers, str),
    "PEFT": peft,
    "diffusers": diffusers,
    "diffusers' processors": processors,
}


def write(path, tensors, metadata=None):
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, metadata)
    return path


def chosen(layers, layout):
    if layout != "diffusers' processors":
        return layers
    return {key: pair for key, pair in layers.items() if key[1].endswith(ATTENTION)}
