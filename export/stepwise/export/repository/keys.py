"""Digests of everything that determines a graph: graphs with the same key are equal.

A key covers the component's format number, the versions of the libraries that write graphs, the
files that the component is loaded from, and the export's options. It does not cover the exporter's
source, so a changed comment changes no key.
"""

import hashlib
import json
import re
from functools import cache
from importlib.metadata import version
from typing import Any

from stepwise.description import formats
from stepwise.description.spec import Component
from stepwise.export.checkpoint.folder import (
    INDEX,
    SCHEDULER,
    Checkpoint,
    component_files,
    files_digest,
    weights_digest,
)
from stepwise.export.checkpoint.lora_file import Lora
from stepwise.export.checkpoint.safetensors_files import check_file, read_files, read_json
from stepwise.export.repository.layout import Target

_WRITERS = ("torch", "diffusers", "transformers", "onnx", "onnx-ir", "onnxscript")
# The libraries that draw pictures, measure layers and choose bits for quantization.
MEASURERS = ("torch", "diffusers", "transformers", "numpy", "onnxruntime", "scipy", "torchmetrics")
# Names of LoRA layers that can only be a denoiser's.
_DENOISER = re.compile(r"lora_unet_|unet\.|transformer\.")


def trace_key(target: Target, component: Component) -> str:
    """The key of a component's trace, which depends on none of its weights."""
    return _digest(_trace_facts(target.checkpoint, component))


def component_key(target: Target, component: Component) -> str:
    """The key of a component's graph, including the files next to it."""
    checkpoint, quantized = target.checkpoint, target.is_quantized(component)
    facts = {
        "trace": trace_key(target, component),
        "format": formats.graph_format(component, target.precision, quantized),
        "files": files_digest(component_files(checkpoint, _part(checkpoint, component))),
        "loras": [
            [lora.scale, files_digest([("lora", lora.file)])]
            for lora in checkpoint.loras
            if _reaches(lora, component)
        ],
    }
    if quantized or target.precision != "fp32":
        # The graph is checked on pictures that depend on the whole checkpoint.
        facts["pictures"] = weights_digest(checkpoint)
    if quantized:
        facts |= {"quantized": target.quantized, "measurers": versions(*MEASURERS)}
    return _digest(facts)


def export_key(target: Target) -> str:
    """The key of a whole export: its components, tokenizers and manifest."""
    checkpoint = target.checkpoint
    keys = {part.name: component_key(target, part) for part in checkpoint.family.components}
    tokenizers = [_tokenizer(checkpoint, encoder) for encoder in checkpoint.family.encoders]
    others = [(path.name, path) for path in (checkpoint.folder / n for n in (INDEX, SCHEDULER))]
    facts = {
        "format": formats.REPOSITORY,
        "pipeline": repr(checkpoint.family),
        "components": keys,
        "tokenizers": tokenizers,
        "others": files_digest(others),
    }
    return _digest(facts)


def _trace_facts(checkpoint: Checkpoint, component: Component) -> dict[str, Any]:
    family, part = checkpoint.family, _part(checkpoint, component)
    config = checkpoint.folder / part.subfolder / "config.json"
    return {
        "component": repr(component),
        "libraries": versions(*_WRITERS),
        "class": read_json(checkpoint.folder / INDEX).get(component.subfolder),
        "config": files_digest([("config", config)]),
        # The sizes that it is traced and checked at.
        "sizes": repr((checkpoint.sides, checkpoint.vae_scale, family.ranges["text"])),
        "tokenizer": _tokenizer(checkpoint, component),
    }


def _part(checkpoint: Checkpoint, component: Component) -> Component:
    """The component that a component's files belong to.

    For a missing component it is the denoiser, which sets the width of the zeros.
    """
    missing = component.name in checkpoint.missing
    return checkpoint.family.denoiser if missing else component


def _tokenizer(checkpoint: Checkpoint, encoder: Component) -> str:
    if not encoder.tokenizer:
        return ""
    folder = checkpoint.folder / encoder.tokenizer
    return files_digest((path.name, path) for path in read_files(folder))


def _reaches(lora: Lora, component: Component) -> bool:
    """Whether a LoRA may change a component: yes, unless its names rule that out."""
    if component.subfolder == "vae":
        return False
    return not component.tokenizer or not all(map(_DENOISER.match, check_file(lora.file)))


@cache
def versions(*packages: str) -> str:
    """The installed versions of packages."""
    return ", ".join(f"{name} {version(name)}" for name in packages)


def _digest(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
