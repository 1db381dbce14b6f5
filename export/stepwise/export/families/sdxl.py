"""Exporter settings of the SDXL family.

Its single-file checkpoints have the layout of https://github.com/Stability-AI/generative-models, in
which model sites publish fine-tunes.
"""

from dataclasses import replace
from pathlib import Path

from stepwise.export.checkpoint.folder import SingleFile
from stepwise.export.families.base import EVERYWHERE, Calibration, FamilyExport, KeepInFp32
from stepwise.export.families.stable_diffusion import CLIP_TEXT, VAE_DECODER

_CONFIGS = Path(__file__).parent / "data"
# Subfolder in the diffusers layout to the prefix of a component's names.
_PREFIXES = {
    "text_encoder": "conditioner.embedders.0.transformer.",
    "text_encoder_2": "conditioner.embedders.1.model.",
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
}

SDXL = FamilyExport(
    keep_in_fp32={
        "clip_l": CLIP_TEXT,
        "clip_g": CLIP_TEXT,
        "unet": (
            *EVERYWHERE,
            KeepInFp32("*.norm?"),
            KeepInFp32("*.conv_norm_out"),
            # Timesteps and sizes in pixels reach 1000 and more, where float16 has steps of 0.5 or
            # more.
            KeepInFp32("model.time_proj"),
            KeepInFp32("model.add_time_proj"),
        ),
        "vae_decoder": VAE_DECODER,
    },
    single_file=SingleFile(_PREFIXES, _CONFIGS / "sdxl"),
    calibration=Calibration(steps=10, guidance_scale=5.0),
)
SDXL_TURBO = replace(
    SDXL,
    single_file=SingleFile(_PREFIXES, _CONFIGS / "sdxl_turbo"),
    calibration=Calibration(steps=4, guidance_scale=0.0),
)
