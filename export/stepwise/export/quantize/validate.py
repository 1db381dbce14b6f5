"""Validates a quantization request against the checkpoint before any work starts."""

import json
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from stepwise.description import files
from stepwise.export.checkpoint.folder import Checkpoint, weights_digest
from stepwise.export.errors import QuantizationError, reason
from stepwise.export.families import family_export, quantizable
from stepwise.export.families.base import Calibration
from stepwise.export.options import Quantization
from stepwise.export.quantize.layers import Layer, find
from stepwise.export.quantize.plan import Plan, check
from stepwise.export.quantize.search.choose import protected_names
from stepwise.export.quantize.search.runtimes import RUNTIMES, limit

_MOST_PROMPTS_BYTES = 1_000_000


def validate(checkpoint: Checkpoint, wanted: Quantization) -> None:
    """Raise QuantizationError if ``wanted`` does not fit a checkpoint; loads no weights."""
    calibration(checkpoint)
    read_prompts(wanted.prompts)
    layers = layers_of(checkpoint)
    protected_names(layers, wanted.protected)
    if wanted.plan is None:
        limit(wanted.budget, layers, RUNTIMES["onnxruntime"])
        return
    plan = Plan.read(wanted.plan)
    check(plan, layers)
    check_source(plan, weights_digest(checkpoint))


def calibration(checkpoint: Checkpoint) -> Calibration:
    """How a checkpoint is calibrated; QuantizationError if it has no UNet."""
    family = checkpoint.family.name
    found = family_export(family).calibration
    if found is None:
        raise QuantizationError(
            f"got {family}, which has no UNet; {', '.join(quantizable())} can be quantized"
        )
    return found


def check_source(plan: Plan, source: str) -> None:
    """Raise QuantizationError unless a plan was made from files with the digest ``source``."""
    if plan.source != source:
        raise QuantizationError(
            f"the plan was made for {plan.checkpoint} with other weights, text encoders or LoRAs "
            f"(digest {plan.source[:12] or 'none'}, this checkpoint's is {source[:12]}), so its "
            "bits and ranges do not fit; make a new one with --quantize or --memory-budget"
        )


def layers_of(checkpoint: Checkpoint) -> tuple[Layer, ...]:
    """The layers of a checkpoint's UNet, from its config alone."""
    path = checkpoint.folder / checkpoint.family.denoiser.subfolder / "config.json"
    with torch.device("meta"):
        return find(UNet2DConditionModel.from_config(json.loads(path.read_text())))


def read_prompts(path: Path) -> tuple[str, ...]:
    """The prompts in a file, one per line; QuantizationError if there is none."""
    try:
        files.check(path, _MOST_PROMPTS_BYTES)
        lines = path.read_text(encoding="utf-8").splitlines()
    except files.UnusableFile as error:
        raise QuantizationError(f"{error}; give a text file with one prompt a line") from error
    except (OSError, ValueError) as error:
        raise QuantizationError(
            f"{path} cannot be read ({reason(error)}); give a text file with one prompt a line"
        ) from error
    if not (prompts := tuple(line.strip() for line in lines if line.strip())):
        raise QuantizationError(f"{path} holds no prompt; write one a line, 8 or more")
    return prompts
