"""Parses ``--lora`` and refuses LoRA files that cannot be fused."""

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from stepwise.export.checkpoint.safetensors_files import check_file
from stepwise.export.errors import CheckpointError

# Names of weights in each layout, as its trainers write them.
LAYOUTS = {
    "kohya": r"lora_(unet|te|te1|te2)_\w+\.(lora_down\.weight|lora_up\.weight|alpha)",
    "PEFT": r".+\.(lora_[AB]\.weight|alpha)",
    "diffusers": r".+[._](lora|lora_linear_layer)\.(down|up)\.weight|.+\.alpha",
}
# Other formats that are distributed as LoRAs, by a part of their names.
_OTHERS = {
    r"dora_scale|lora_magnitude_vector": "DoRA",
    r"\.hada_": "LoHa",
    r"\.lokr_": "LoKr",
    r"\.lora_mid\.": "LoCon with a core tensor",
    r"\.oft_": "OFT",
    r"\.diff(_b)?$": "set of full differences",
}


@dataclass(frozen=True)
class Lora:
    """A LoRA to be fused into a checkpoint: W + ``scale`` * alpha / rank * up @ down."""

    file: Path
    scale: float

    def __str__(self) -> str:
        """As on the command line."""
        return f"{self.file}:{self.scale}"


def parse_lora(text: str) -> Lora:
    """Parse ``file`` or ``file:scale``; CheckpointError unless the scale is finite and not 0."""
    file, colon, scale = text.rpartition(":")
    if not colon or os.path.isfile(text):
        return Lora(Path(text), 1.0)
    try:
        value = float(scale)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value == 0:
        raise CheckpointError(
            f"--lora {text}: got the scale {scale!r}; it should be a number other than 0, as in "
            f"{file}:0.8"
        )
    return Lora(Path(file), value)


def check_lora(lora: Lora) -> str:
    """The layout of a file's names, one of LAYOUTS; CheckpointError if it cannot be fused."""
    if lora.file.suffix != ".safetensors" or not os.path.lexists(lora.file):
        raise CheckpointError(
            f"{lora.file} is no .safetensors file; give --lora the path of one, or path:scale"
        )
    names = list(check_file(lora.file))
    for part, kind in _OTHERS.items():
        if found := [name for name in names if re.search(part, name)]:
            raise CheckpointError(
                f"{lora.file} is a {kind} ({found[0]}); allowed are LoRA and LoCon without a core "
                "tensor"
            )
    for layout, pattern in LAYOUTS.items():
        if names and all(re.fullmatch(pattern, name) for name in names):
            return layout
    raise CheckpointError(
        f"{lora.file} is not a LoRA in a known layout: its names are "
        f"{', '.join(names[:3])}, …; allowed are those of {', '.join(LAYOUTS)}"
    )
