"""Equal graphs and traces are exported once: graphs by their keys, traces by their configs."""

import json
import os
import shutil
from pathlib import Path

import onnx_ir as ir
import pytest
import torch
from diffusers import UNet2DConditionModel
from onnxscript import rewriter
from safetensors.torch import load_file, save_file

from stepwise.description.graph_files import GRAPH
from stepwise.export.loading.loader import load
from stepwise.export.loading.source import open_checkpoint
from stepwise.export.modules.sdxl_unet import SdxlUnet
from stepwise.export.onnx import exporter
from stepwise.export.onnx.graph_files import TRACE
from stepwise.export.onnx.module_names import SCOPES
from stepwise.export.onnx.shapes import traced
from stepwise.export.repository import records
from stepwise.export.repository.keys import component_key, trace_key
from stepwise.export.repository.layout import Target
from stepwise.families import FAMILIES
from tests.conftest import ROOT, TRAINED, further

SDXL = FAMILIES["sdxl"]


ALL = [(family, part.name) for family, p in TRAINED.items() for part in p.components]


def target(repository, folder=ROOT / "miniatures" / "sdxl", name="other"):
    return Target(open_checkpoint(folder, SDXL), repository, name)


@pytest.fixture
def alone(monkeypatch):
    """Disables the store outside the repository."""
    monkeypatch.delenv(records.KEPT)


@pytest.fixture
def copy(families, tmp_path):
    """A repository with one encoder of SDXL."""
    shutil.copytree(families / "sdxl_clip_l", tmp_path / "r" / "sdxl_clip_l")
    return tmp_path / "r"


def test_a_graph_is_taken_from_another_pipeline_of_the_repository(alone, copy, tmp_path):
    video = SDXL.encoders[0]
    rows = records.take(target(copy), video, tmp_path / "taken")
    assert rows is not None
    assert all(row.ok for row in rows)
    original = copy / "sdxl_clip_l" / "1"
    for path in (tmp_path / "taken").iterdir():
        assert path.read_bytes() == (original / path.name).read_bytes()
    assert (tmp_path / "taken" / GRAPH).stat().st_ino == (original / GRAPH).stat().st_ino


@pytest.mark.parametrize("damage", ["model.onnx", "export.json", "parity.json", "trace.onnx"])
def test_an_incomplete_graph_is_not_taken(alone, copy, tmp_path, damage):
    path = copy / "sdxl_clip_l" / "1" / damage
    path.unlink() if damage == TRACE else path.write_text("damaged")
    assert records.take(target(copy), SDXL.encoders[0], tmp_path / "taken") is None


def test_of_other_weights_only_the_trace_is_taken(alone, copy, tmp_path):
    folder = Path(shutil.copytree(ROOT / "miniatures" / "sdxl", tmp_path / "checkpoint"))
    weights = folder / "text_encoder" / "model.safetensors"
    changed = {name: value * 1.001 for name, value in load_file(weights).items()}
    save_file(changed, weights, {"format": "pt"})
    other, video = target(copy, folder), SDXL.encoders[0]
    assert records.take(other, video, tmp_path / "taken") is None
    (tmp_path / "taken").mkdir()
    records.take_trace(other, video, tmp_path / "taken")
    trace, module = tmp_path / "taken" / TRACE, load(other.checkpoint, video)
    sizes = traced(other.checkpoint.sides, other.checkpoint.vae_scale, 20)
    written = {}
    for way, given in (("shared", trace), ("own", None)):
        (tmp_path / way).mkdir()
        written[way] = exporter.write_graph(module, video, sizes, tmp_path / way, trace=given)
    assert written["shared"].read_bytes() == written["own"].read_bytes()


def test_a_stored_graph_is_taken_into_an_empty_repository(copy, tmp_path, monkeypatch):
    monkeypatch.setenv(records.KEPT, str(tmp_path / "kept"))
    video, nothing = SDXL.encoders[0], target(tmp_path / "nothing")
    assert records.take(nothing, video, tmp_path / "taken") is None
    records.keep(copy / "sdxl_clip_l" / "1")
    kept = {component_key(nothing, video), trace_key(nothing, video)}
    assert {path.name for path in (tmp_path / "kept").iterdir()} == kept
    assert records.take(nothing, video, tmp_path / "taken") is not None


def test_a_record_lists_the_files(families):
    folder = families / "sdxl_turbo_unet" / "1"
    files = json.loads((folder / "export.json").read_text())["files"]
    assert files == sorted(set(os.listdir(folder)) - {"export.json"})
    large = [
        value.const_value
        for value in ir.load(folder / TRACE).graph.initializers.values()
        if isinstance(value.const_value, ir.ExternalTensor)
    ]
    print(f"{(folder / TRACE).stat().st_size} bytes, {len(large)} weights as names only")
    assert len(large) > 300


@pytest.mark.parametrize(("family", "name"), ALL)
def test_graphs_and_traces_hold_no_path_of_this_machine(families, family, name):
    for file in (GRAPH, TRACE):
        data = (families / f"{family}_{name}" / "1" / file).read_bytes()
        found = {
            path: data.count(os.fsencode(path)) for path in (ROOT, Path(torch.__path__[0]).parent)
        }
        print(f"{file}: {len(data)} bytes, {data.count(SCOPES.encode())} names of modules, {found}")
        assert not any(found.values())
        assert SCOPES.encode() in data


@pytest.fixture
def captures(monkeypatch):
    """The ``strict`` option of each capture."""
    found, capture = [], torch.export.export

    def counted(*arguments, **options):
        found.append(options["strict"])
        return capture(*arguments, **options)

    monkeypatch.setattr(torch.export, "export", counted)
    return found


def write_trace(checkpoint, part, module, folder):
    sizes = traced(checkpoint.sides, checkpoint.vae_scale, 20)
    exporter.write_trace(module, part, sizes, folder / TRACE)


@pytest.mark.parametrize(
    ("family", "name"),
    [("sdxl", "clip_l"), *(further(*each) for each in ALL if each != ("sdxl", "clip_l"))],
)
def test_a_component_is_captured_once(checkpoints, family, name, tmp_path, captures, capfd):
    checkpoint = open_checkpoint(checkpoints[family], FAMILIES[family])
    part = next(part for part in checkpoint.family.components if part.name == name)
    write_trace(checkpoint, part, load(checkpoint, part), tmp_path)
    assert captures == [False]
    assert "failed while executing" not in "".join(capfd.readouterr())


def test_a_unet_that_the_exporter_captures_twice_is_captured_once(
    checkpoints, tmp_path, captures, capfd
):
    """This UNet resizes to its skip connections, where the exporter's own capture fails."""
    checkpoint = open_checkpoint(checkpoints["sdxl"], SDXL)
    config = UNet2DConditionModel.load_config(checkpoints["sdxl"] / "unet")
    two = {
        "block_out_channels": (64, 96),
        "attention_head_dim": (2, 3),
        "transformer_layers_per_block": 1,
        "down_block_types": config["down_block_types"][:2],
        "up_block_types": config["up_block_types"][-2:],
    }
    unet = SdxlUnet(UNet2DConditionModel.from_config({**config, **two})).eval()
    write_trace(checkpoint, SDXL.denoiser, unet, tmp_path)
    assert captures == [False]
    assert "failed while executing" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("name", ["clip_l", further("vae_decoder"), further("unet")])
def test_our_rewrite_rules_give_the_same_graph_as_all_rules(
    families, checkpoints, name, monkeypatch
):
    checkpoint = open_checkpoint(checkpoints["sdxl"], SDXL)
    part = next(part for part in SDXL.components if part.name == name)
    module, trace = load(checkpoint, part), families / f"sdxl_{name}" / "1" / TRACE
    ours = ir.to_proto(exporter.filled(trace, module))
    monkeypatch.setattr(exporter, "RULES", rewriter._DEFAULT_REWRITE_RULES)
    assert ir.to_proto(exporter.filled(trace, module)) == ours
