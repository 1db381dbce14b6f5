"""Checkpoints with random weights, in the classes and sizes of the miniatures."""

import json
from pathlib import Path

import torch

from miniatures import sdxl, vae

ANCESTRAL = "EulerAncestralDiscreteScheduler"
TURBO = {"_class_name": ANCESTRAL, "timestep_spacing": "trailing"}


def write_sdxl(folder: Path, turbo: bool = False) -> Path:
    """An SDXL checkpoint whose pictures depend on everything that it is told."""
    torch.manual_seed(0)
    model = sdxl.Sdxl()
    decoder = vae.autoencoder(block_out_channels=(16, 32, 64), latent_channels=4)
    with torch.no_grad():
        # As it is made, a UNet hardly answers and a decoder paints all gray.
        model.unet.conv_out.weight *= 3
        decoder.decoder.conv_out.weight *= 3
    decoder.half().save_pretrained(folder / "vae")
    sdxl.save(model, folder)
    if turbo:
        _change(folder / "scheduler" / "scheduler_config.json", TURBO)
        # diffusers takes the scheduler's class from here.
        _change(folder / "model_index.json", {"scheduler": ["diffusers", ANCESTRAL]})
    return folder


def _change(path: Path, fields: dict[str, object]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}, indent=2))
