import json
import shutil
import subprocess

import pytest
import torch
from diffusers import SD3Transformer2DModel
from safetensors.torch import load_file, save_file

from stepwise.description.manifest import Sides
from stepwise.export.errors import CheckpointError
from stepwise.export.loading.loader import load
from stepwise.export.loading.source import open_checkpoint
from stepwise.export.modules.t5 import ZeroText
from stepwise.export.preflight.smoke_test import rehearse
from stepwise.families import FAMILIES
from tests.support.family import key
from tests.support.paths import ROOT, STEPWISE
from tests.unit.export.conftest import MINIATURE, edit

SD3 = FAMILIES["sd3"]
CLIP_L, T5 = SD3.encoders[0], SD3.encoders[2]
WEIGHTS = {"diffusers": "diffusion_pytorch_model.safetensors", "transformers": "model.safetensors"}


def edit_weights(path, change):
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def refused(folder, *words):
    """Assert that opening ``folder`` fails with one sentence that contains all ``words``."""
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(folder, SD3)
    message = str(error.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def refused_load(folder, component, *words):
    checkpoint = open_checkpoint(folder, SD3)
    with pytest.raises(CheckpointError) as error:
        load(checkpoint, component)
    message = str(error.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_a_whole_checkpoint_opens_with_its_sides(folder):
    checkpoint = open_checkpoint(folder, SD3)
    assert checkpoint.missing == ()
    assert checkpoint.vae_scale == 8
    assert checkpoint.sides == Sides(native=64, minimum=32, maximum=96, multiple=16)
    assert checkpoint.schedule["shift"] == 3.0


def test_sides_stay_on_the_grid_and_within_the_position_embeddings(folder):
    config = folder / "transformer" / "config.json"
    edit(config, lambda fields: fields.update(sample_size=10, pos_embed_max_size=6))
    sides = open_checkpoint(folder, SD3).sides
    assert sides == Sides(native=80, minimum=48, maximum=96, multiple=16)


def test_a_missing_folder(tmp_path):
    refused(tmp_path / "nowhere", "nowhere", "not a folder", "diffusers layout")


def test_a_folder_that_is_no_checkpoint(tmp_path):
    refused(tmp_path, "model_index.json", "diffusers layout")


def test_the_error_of_another_pipeline_lists_supported_ones(folder):
    edit(folder / "model_index.json", lambda f: f.update(_class_name="FluxPipeline"))
    refused(folder, "FluxPipeline", "StableDiffusion3Pipeline", "can be exported: sd3")


@pytest.mark.parametrize(
    "subfolder", ["text_encoder", "tokenizer_2", "tokenizer_3", "transformer", "vae"]
)
def test_a_missing_component_is_named_with_its_path(folder, subfolder):
    shutil.rmtree(folder / subfolder)
    refused(folder, "lacks", str(folder / subfolder))


@pytest.mark.parametrize("file", ["scheduler/scheduler_config.json", "vae/config.json"])
def test_a_missing_or_broken_config_is_named(folder, file):
    (folder / file).write_text("{")
    refused(folder, file, "not valid JSON")
    (folder / file).unlink()
    refused(folder, file, "missing")


def test_a_config_that_lacks_an_entry_for_the_sides(folder):
    edit(folder / "transformer" / "config.json", lambda f: f.pop("patch_size"))
    with pytest.raises(CheckpointError, match="no 'patch_size'"):
        _ = open_checkpoint(folder, SD3).sides


def test_the_error_of_an_unsupported_scheduler_names_its_file(folder):
    config = folder / "scheduler" / "scheduler_config.json"
    edit(config, lambda fields: fields.update(invert_sigmas=True))
    refused(folder, str(config), "invert_sigmas=True", "False")


def test_missing_weights_are_named(folder):
    (folder / "transformer" / WEIGHTS["diffusers"]).unlink()
    refused(folder, str(folder / "transformer"), "no weights", WEIGHTS["diffusers"])


@pytest.mark.parametrize("keep", [5, 1000, -1])
def test_the_error_of_truncated_weights_has_the_expected_size(folder, keep):
    path = folder / "vae" / WEIGHTS["diffusers"]
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    expected = f"{len(whole):,}" if keep == -1 else "promises"
    refused(folder, str(path), "truncated", f"{len(whole[:keep]):,} bytes", expected)


def test_weights_without_a_valid_header(folder):
    path = folder / "vae" / WEIGHTS["diffusers"]
    header = b"these are no tensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    refused(folder, str(path), "corrupt", "no safetensors header")


def test_a_header_that_the_library_refuses(folder):
    path = folder / "vae" / WEIGHTS["diffusers"]
    entry = {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}
    header = json.dumps({"weight": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    refused(folder, str(path), "corrupt", "invalid shape")


def test_quantized_weights_are_refused(folder):
    path = folder / "vae" / WEIGHTS["diffusers"]
    edit_weights(path, lambda weights: weights.update(stray=torch.ones(1, dtype=torch.int8)))
    refused(folder, str(path), "stray is stored as I8", "allowed are BF16, F16, F32, F64")


@pytest.mark.parametrize(("key", "value"), [("num_layers", 1_000_000), ("d_model", 1_000_000)])
def test_a_config_far_larger_than_its_weights_is_refused(folder, key, value):
    path = folder / "text_encoder_3" / "config.json"
    edit(path, lambda fields: fields.update({key: value}))
    refused(folder, str(path), f"{key}=1000000", "far more than its weights hold")


@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "shards"])
def test_half_precision_weights_are_loaded_without_the_full_ones(folder, sharded):
    """stabilityai publishes such checkpoints: ``*.fp16.safetensors`` without the plain files."""
    if sharded:
        model = SD3Transformer2DModel.from_pretrained(folder / "transformer")
        (folder / "transformer" / WEIGHTS["diffusers"]).unlink()
        model.save_pretrained(folder / "transformer", variant="fp16", max_shard_size="5MB")
    for path in folder.rglob("*.safetensors"):
        if "fp16" not in path.name:
            edit_weights(path, lambda w: w.update({name: w[name].half() for name in w}))
            path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    checkpoint, plain = open_checkpoint(folder, SD3), open_checkpoint(MINIATURE, SD3)
    for component in SD3.components:
        ours, whole = (load(c, component).state_dict() for c in (checkpoint, plain))
        assert ours.keys() == whole.keys()
        for name, value in ours.items():
            assert value.dtype == whole[name].dtype
            torch.testing.assert_close(value, whole[name].half().to(value.dtype))
    rehearse(checkpoint)


def test_full_precision_weights_are_preferred(folder):
    path = folder / "vae" / WEIGHTS["diffusers"]
    path.with_name("diffusion_pytorch_model.fp16.safetensors").write_bytes(b"never read")
    assert torch.isfinite(next(load(open_checkpoint(folder, SD3), SD3.decoder).parameters())).all()


def test_a_missing_shard(folder):
    place = folder / "transformer"
    model = SD3Transformer2DModel.from_pretrained(place)
    (place / WEIGHTS["diffusers"]).unlink()
    model.save_pretrained(place, max_shard_size="5MB")
    shards = sorted(place.glob("*-of-*.safetensors"))
    assert len(shards) > 1
    loaded = load(open_checkpoint(folder, SD3), SD3.denoiser)
    assert torch.equal(loaded.model.proj_out.weight, model.proj_out.weight.float())
    shards[0].unlink()
    refused(folder, shards[0].name, "missing")


@pytest.mark.parametrize("component", [CLIP_L, SD3.denoiser], ids=lambda c: c.name)
def test_weights_that_do_not_fit_the_config_are_never_replaced_by_random_ones(folder, component):
    library = "transformers" if component.tokenizer else "diffusers"
    path = folder / component.subfolder / WEIGHTS[library]
    whole = path.read_bytes()
    name = next(key for key in load_file(path) if key.endswith("weight"))

    edit_weights(path, lambda weights: weights.pop(name))
    refused_load(folder, component, str(path.parent), "missing", name)
    path.write_bytes(whole)
    edit_weights(path, lambda weights: weights.update(stray=torch.ones(1)))
    refused_load(folder, component, str(path.parent), "unexpected", "stray")
    path.write_bytes(whole)
    edit_weights(path, lambda weights: weights.update({name: torch.ones(3, 5)}))
    refused_load(folder, component, str(path.parent), name)


def test_an_unknown_class(folder):
    edit(folder / "model_index.json", lambda f: f.update(text_encoder=["x", "Gpt"]))
    refused_load(folder, CLIP_L, "text_encoder", "Gpt", "allowed are CLIPTextModel, ")


def test_components_are_in_float32_and_inference_mode(folder):
    checkpoint = open_checkpoint(folder, SD3)
    for component in SD3.components:
        module = load(checkpoint, component)
        assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
        assert not any(part.training for part in module.modules()), component.name


@pytest.mark.parametrize("how", ["null in the index", "not in the index", "no folder"])
def test_sd3_without_t5_is_allowed(folder, how):
    if how == "no folder":
        shutil.rmtree(folder / T5.subfolder)
        shutil.rmtree(folder / T5.tokenizer)
    elif how == "null in the index":
        edit(folder / "model_index.json", lambda f: f.update(text_encoder_3=[None, None]))
    else:
        edit(folder / "model_index.json", lambda f: f.pop("text_encoder_3"))
    checkpoint = open_checkpoint(folder, SD3)
    assert checkpoint.missing == ("t5",)
    module = load(checkpoint, T5)
    assert isinstance(module, ZeroText)
    assert torch.equal(module(torch.ones(2, 7, dtype=torch.int64)), torch.zeros(2, 7, 160))


def test_a_digest_changes_with_any_file_of_a_component(folder):
    before = key(open_checkpoint(folder, SD3))
    (folder / "README.md").write_text("does not count")
    assert key(open_checkpoint(folder, SD3)) == before
    seen = {before}
    for file in ("scheduler/scheduler_config.json", "tokenizer/tokenizer.json", "vae/config.json"):
        (folder / file).write_text((folder / file).read_text() + "\n")
        seen.add(key(open_checkpoint(folder, SD3)))
    edit_weights(folder / "vae" / WEIGHTS["diffusers"], lambda w: next(iter(w.values())).add_(1))
    seen.add(key(open_checkpoint(folder, SD3)))
    assert len(seen) == 5


def test_the_command_reports_an_error_in_one_line(tmp_path):
    command = [STEPWISE, "export", "sd3", "--checkpoint", str(tmp_path)]
    command += ["--repository", str(tmp_path / "repository")]
    root = ROOT
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "model_index.json" in done.stderr
    assert not (tmp_path / "repository").exists()


def test_a_model_that_cannot_be_built_does_not_change_the_default_dtype(folder):
    """diffusers alone would leave torch's default dtype set to the dtype of the weights."""
    path = folder / "vae" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "down_block_types": ["NoSuchBlock"] * 4}))
    before = torch.get_default_dtype()
    with pytest.raises(CheckpointError, match="vae"):
        load(open_checkpoint(folder, SD3), SD3.decoder)
    assert torch.get_default_dtype() == before
