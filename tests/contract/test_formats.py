"""A graph may change only together with its format number.

``FORMATS=write`` records the graphs of new numbers in ``formats.json``.
"""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from stepwise.description import formats
from stepwise.description.graph_files import GRAPH
from stepwise.export.checkpoint.lora_file import parse_lora
from stepwise.export.loading.source import open_checkpoint
from stepwise.export.repository import keys
from stepwise.export.repository.layout import Target
from stepwise.families import FAMILIES
from tests.conftest import ROOT, TRAINED

NOTED = Path(__file__).with_name("formats.json")


def shape(path: Path) -> str:
    """A digest of a graph without its weights: operators, attributes, inputs, outputs, types."""
    graph = onnx.load(str(path), load_external_data=False).graph
    lines = [f"{value.name} {value.type}" for value in (*graph.input, *graph.output)]
    for node in graph.node:
        attributes = sorted(str(attribute) for attribute in node.attribute)
        lines.append(f"{node.domain} {node.op_type} {len(node.input)} {attributes}")
    lines += sorted(f"{weight.data_type} {list(weight.dims)}" for weight in graph.initializer)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def found(repository: Path, precision: str) -> dict[str, str]:
    """The digest of each component's graph, by component and format number."""
    return {
        f"{family}/{part.name} {formats.graph_format(part, precision, False)}": shape(
            repository / f"{family}_{part.name}" / "1" / GRAPH
        )
        for family, pipeline in TRAINED.items()
        for part in pipeline.components
    }


@pytest.mark.parametrize(("precision", "exports"), [("fp32", "families"), ("fp16", "halves")])
def test_a_graph_changes_only_with_its_format_number(request, precision, exports):
    got = found(request.getfixturevalue(exports), precision)
    noted = json.loads(NOTED.read_text()) if NOTED.is_file() else {}
    if os.environ.get("FORMATS") == "write":
        # A recorded number keeps its graph.
        noted = {**got, **noted}
        NOTED.write_text(json.dumps(noted, indent=2, sort_keys=True) + "\n")
    changed = [name for name, digest in got.items() if noted.get(name) != digest]
    assert not changed, (
        f"the graphs of {changed} changed without a new format number; raise Component.format, or "
        "HALF in description/formats.py, and run this test with FORMATS=write"
    )


@pytest.fixture
def target(tmp_path):
    checkpoint = open_checkpoint(ROOT / "miniatures" / "sdxl", FAMILIES["sdxl"])
    return Target(checkpoint, tmp_path, "sdxl")


def all_keys(target):
    keys.versions.cache_clear()
    parts = target.checkpoint.family.components
    return {part.name: keys.component_key(target, part) for part in parts}


def test_another_version_of_a_library_that_writes_graphs_changes_every_key(target, monkeypatch):
    before = all_keys(target)
    assert all_keys(target) == before
    monkeypatch.setattr(keys, "version", lambda name: "0" if name == "onnxscript" else "1")
    after = all_keys(target)
    assert not set(before.values()) & set(after.values())
    keys.versions.cache_clear()


def test_a_unet_lora_changes_only_the_key_of_the_unet(target):
    lora = parse_lora(str(ROOT / "miniatures/sdxl_outline/pytorch_lora_weights.safetensors"))
    checkpoint = replace(target.checkpoint, loras=(lora,))
    before, after = all_keys(target), all_keys(replace(target, checkpoint=checkpoint))
    assert {name for name in before if before[name] != after[name]} == {"unet"}


def test_pipelines_share_the_keys_of_equal_components(target, tmp_path):
    turbo = open_checkpoint(ROOT / "miniatures" / "sdxl_turbo", FAMILIES["sdxl_turbo"])
    other = all_keys(Target(turbo, tmp_path, "sdxl_turbo"))
    same = {name for name, key in all_keys(target).items() if other[name] == key}
    assert same == {"clip_l", "clip_g", "vae_decoder"}
