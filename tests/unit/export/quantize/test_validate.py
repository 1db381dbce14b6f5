"""An invalid quantization request is refused before any computation, with one sentence."""

import json
import os
import shutil

import pytest

from stepwise.export.checkpoint.folder import weights_digest
from stepwise.export.errors import QuantizationError
from stepwise.export.loading.source import open_checkpoint
from stepwise.export.options import PROMPTS, Quantization
from stepwise.export.quantize.layers import find
from stepwise.export.quantize.plan import Entry, Plan
from stepwise.export.quantize.validate import layers_of, validate
from stepwise.families import FAMILIES
from tests.conftest import ROOT


def turbo(folder=ROOT / "miniatures" / "sdxl_turbo"):
    return open_checkpoint(folder, FAMILIES["sdxl_turbo"])


def plan_for(checkpoint, layers=None, source=None):
    entries = {layer.name: Entry(8, 8) for layer in layers or layers_of(checkpoint)}
    return Plan("another", source or weights_digest(checkpoint), 0, entries)


def wanted(tmp_path, plan):
    plan.write(tmp_path / "plan.json")
    return Quantization(PROMPTS, plan=tmp_path / "plan.json")


def test_layers_are_known_without_weights(study):
    assert layers_of(turbo()) == find(study.unet)


def test_a_plan_for_these_files_is_accepted(tmp_path):
    validate(turbo(), wanted(tmp_path, plan_for(turbo())))


def test_a_plan_for_another_model_names_the_layers_that_do_not_match(tmp_path):
    others = layers_of(open_checkpoint(ROOT / "miniatures" / "sdxl", FAMILIES["sdxl"]))
    renamed = [type(layer)(f"x.{layer.name}", layer.shape, layer.group) for layer in others]
    told = f"the model lacks {len(renamed)}: x.add_embedding"
    with pytest.raises(QuantizationError, match=told):
        validate(turbo(), wanted(tmp_path, plan_for(turbo(), renamed)))
    missing = f"the plan lacks {len(others) - 1}: "
    with pytest.raises(QuantizationError, match=missing):
        validate(turbo(), wanted(tmp_path, plan_for(turbo(), others[:1])))


@pytest.mark.parametrize("part", ["text_encoder", "unet"])
def test_a_plan_is_stale_once_weights_or_text_encoders_change(tmp_path, part):
    folder = tmp_path / "checkpoint"
    shutil.copytree(ROOT / "miniatures" / "sdxl_turbo", folder)
    (path,) = (folder / part).glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(QuantizationError, match="with other weights, text encoders or LoRAs"):
        validate(turbo(folder), wanted(tmp_path, plan_for(turbo())))


def test_families_without_a_unet_are_refused():
    checkpoint = open_checkpoint(ROOT / "miniatures" / "sd3", FAMILIES["sd3"])
    with pytest.raises(QuantizationError, match="got sd3, which has no UNet; sdxl, sdxl_turbo"):
        validate(checkpoint, Quantization(PROMPTS, "w8a8"))


def test_prompts_are_not_read_from_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "prompts.txt")
    with pytest.raises(QuantizationError, match="prompts.txt is a FIFO .*; give a text file with"):
        validate(turbo(), Quantization(tmp_path / "prompts.txt", "w8a8"))


@pytest.mark.parametrize("text", [None, "", " \n\n"])
def test_a_missing_or_empty_prompts_file_is_refused(tmp_path, text):
    path = tmp_path / "prompts.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(
        QuantizationError, match=r"prompts\.txt (is missing|is empty|holds no prompt)"
    ):
        validate(turbo(), Quantization(path, "w8a8"))


def test_protected_layers_must_exist():
    with pytest.raises(QuantizationError, match="no layer to protect is called 'conv_inn'"):
        validate(turbo(), Quantization(PROMPTS, "w8a8", protected=("conv_inn",)))


def test_the_digest_covers_the_plan(tmp_path):
    plan = wanted(tmp_path, plan_for(turbo()))
    before = plan.digest
    assert before == plan.digest != Quantization(PROMPTS, "w8a8").digest
    path = tmp_path / "plan.json"
    given = json.loads(path.read_text())
    given["layers"]["conv_in"]["weight_bits"] = 16
    path.write_text(json.dumps(given))
    assert plan.digest != before
