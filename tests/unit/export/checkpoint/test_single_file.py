"""A single file in the original layout gives the same weights as the diffusers folder."""

import json
import shutil

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from stepwise.export.loading.source import open_source
from stepwise.families import FAMILIES
from stepwise.sampling import schedules
from tests.support import originals
from tests.support.family import PARTS, SDXL, key, load_model
from tests.support.paths import ROOT
from tests.unit.export.conftest import sentence

UNET, CLIP_G = "model.diffusion_model.", "conditioner.embedders.1.model."
# A few weight names that identify files of other families.
OTHERS = {
    "Stable Diffusion 1": ["cond_stage_model.transformer.text_model.final_layer_norm.weight"],
    "Stable Diffusion 2": ["cond_stage_model.model.ln_final.weight"],
    "Stable Diffusion 3": ["model.diffusion_model.joint_blocks.0.x_block.mlp.fc1.weight"],
    "Flux": ["double_blocks.0.img_attn.qkv.weight"],
    "SDXL refiner": ["conditioner.embedders.0.model.ln_final.weight", UNET + "out.0.weight"],
    "Playground": ["edm_mean", UNET + "out.0.weight"],
    "a LoRA, for --lora": ["lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"],
    "one component": ["down_blocks.0.resnets.0.conv1.weight"],
    "an unknown model": ["blocks.0.weight"],
}
CONFIGS = ROOT / "export" / "stepwise" / "export" / "families" / "data"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An SDXL checkpoint in the diffusers layout."""
    return originals.write(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture(scope="module")
def file(folder, tmp_path_factory):
    """The checkpoint of ``folder`` as one file."""
    return originals.write_original(folder, tmp_path_factory.mktemp("one") / "model.safetensors")


@pytest.fixture
def broken(file, tmp_path):
    """A copy of the file that tests may damage."""
    return shutil.copyfile(file, tmp_path / "broken.safetensors")


def edit(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def refused(path, folder, *words, pipeline=SDXL):
    message = sentence(lambda: open_source(str(path), pipeline, folder))
    assert all(word in message for word in (str(path), *words)), message


def refused_load(path, folder, subfolder, *words):
    checkpoint = open_source(str(path), SDXL, folder)
    message = sentence(lambda: load_model(checkpoint, subfolder))
    assert all(word in message for word in (str(path), *words)), message


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("subfolder", PARTS)
def test_the_file_has_the_weights_of_the_folder(folder, tmp_path, subfolder, dtype):
    file = originals.write_original(folder, tmp_path / "model.safetensors", dtype)
    one = load_model(open_source(str(file), SDXL, folder), subfolder)
    whole = load_model(open_source(str(folder), SDXL), subfolder)
    got, due = one.state_dict(), whole.state_dict()
    assert got.keys() == due.keys()
    for name, value in due.items():
        assert got[name].dtype == torch.float32
        assert torch.equal(got[name], value.to(dtype).float()), name
    assert not any(value.is_meta for value in (*one.parameters(), *one.buffers()))
    assert not one.training


def test_the_file_has_the_weights_that_diffusers_reads_from_it(folder, file):
    """The oracle for every component is diffusers' own conversion of the file."""
    pipeline = StableDiffusionXLPipeline.from_single_file(
        str(file), config=str(folder), local_files_only=True
    )
    checkpoint = open_source(str(file), SDXL, folder)
    for subfolder in PARTS:
        theirs = getattr(pipeline, subfolder).float().state_dict()
        for name, value in load_model(checkpoint, subfolder).state_dict().items():
            assert torch.equal(value, theirs[name]), (subfolder, name)


@pytest.mark.parametrize("size", [0, 5, 1000, -1])
def test_a_truncated_file(broken, folder, size):
    broken.write_bytes(broken.read_bytes()[:size])
    refused(broken, folder, "truncated", "download it again")


def test_a_pickle(tmp_path, folder):
    (tmp_path / "model.ckpt").write_bytes(b"anything")
    refused(tmp_path / "model.ckpt", folder, "no .safetensors file")


@pytest.mark.parametrize("kind", OTHERS)
def test_another_family_is_named(tmp_path, kind):
    path = tmp_path / "model.safetensors"
    save_file({name: torch.ones(1, 1) for name in OTHERS[kind]}, path)
    refused(path, None, kind, "sdxl is exported from", "StableDiffusionXLPipeline")


@pytest.mark.parametrize(
    ("width", "kind"), [(768, "Stable Diffusion 1"), (2048, "SDXL"), (160, "another model")]
)
def test_a_lone_unet_is_recognized_by_the_width_of_its_text(tmp_path, width, kind):
    path = tmp_path / "model.safetensors"
    name = f"{UNET}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
    save_file({name: torch.ones(4, width)}, path)
    refused(path, None, "UNet without text encoders", kind)


def test_an_inpainting_model_is_recognized_by_its_channels(broken, folder):
    name = f"{UNET}input_blocks.0.0.weight"
    edit(broken, lambda t: t.update({name: torch.ones(len(t[name]), 9, 3, 3)}))
    refused(broken, folder, "inpainting")


def test_sd3_is_not_exported_from_one_file(file):
    refused(file, None, "SDXL", "StableDiffusion3Pipeline", pipeline=FAMILIES["sd3"])


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder_2"])
def test_a_file_without_a_component(broken, folder, component):
    prefix = originals.LAYOUT[component][0]
    edit(broken, lambda t: [t.pop(name) for name in list(t) if name.startswith(prefix)])
    refused(broken, folder, "lacks", prefix)


@pytest.mark.parametrize("name", ["v_pred", "ztsnr", "model.unet.weight"])
def test_names_of_no_component(broken, folder, name):
    edit(broken, lambda t: t.update({name: torch.ones(1)}))
    refused(broken, folder, "unexpected", name)


@pytest.mark.parametrize(
    ("subfolder", "name"),
    [
        ("unet", f"{UNET}output_blocks.0.0.in_layers.2.bias"),
        ("unet", f"{UNET}label_emb.0.0.weight"),
        ("vae", "first_stage_model.decoder.mid.attn_1.q.weight"),
        ("text_encoder", f"{originals.LAYOUT['text_encoder'][0]}text_model.final_layer_norm.bias"),
        ("text_encoder_2", CLIP_G + "text_projection"),
    ],
)
def test_a_missing_weight_is_never_initialized(broken, folder, subfolder, name):
    edit(broken, lambda t: t.pop(name))
    refused_load(broken, folder, subfolder, f"({subfolder})")


@pytest.mark.parametrize("subfolder", PARTS)
def test_an_unused_weight_is_named(broken, folder, subfolder):
    name = f"{originals.LAYOUT[subfolder][0]}stray.weight"
    edit(broken, lambda t: t.update({name: torch.ones(1)}))
    refused_load(broken, folder, subfolder, "1 unexpected", "stray")


@pytest.mark.parametrize(
    ("subfolder", "name"),
    [("unet", f"{UNET}out.2.weight"), ("text_encoder_2", CLIP_G + "ln_final.bias")],
)
def test_a_weight_of_another_shape_is_named(broken, folder, subfolder, name):
    edit(broken, lambda t: t.update({name: torch.ones(3)}))
    refused_load(broken, folder, subfolder, "1 mismatched")


def test_numbers_that_are_not_finite(broken, folder):
    edit(broken, lambda t: t[f"{UNET}out.2.bias"].fill_(torch.nan))
    refused_load(broken, folder, "unet", "1 not finite", "conv_out.bias")


def test_the_small_file_does_not_fit_the_true_sdxl(file):
    refused(file, None, "far more than its weights hold")


def test_the_digest_covers_the_file_and_not_the_weights_next_to_its_config(
    broken, folder, tmp_path
):
    config = shutil.copytree(folder, tmp_path / "config")
    before = key(open_source(str(broken), SDXL, config))
    (config / "unet" / originals.WEIGHTS["unet"]).write_bytes(b"not read")
    assert key(open_source(str(broken), SDXL, config)) == before
    path = config / "tokenizer" / "tokenizer_config.json"
    path.write_text(path.read_text() + "\n")
    changed = key(open_source(str(broken), SDXL, config))
    edit(broken, lambda t: t[f"{UNET}out.2.bias"].add_(1))
    assert len({before, changed, key(open_source(str(broken), SDXL, config))}) == 3


def test_a_config_is_only_allowed_for_a_file(folder):
    message = sentence(lambda: open_source(str(folder), SDXL, folder))
    assert "--config" in message


@pytest.mark.parametrize("family", ["sdxl", "sdxl_turbo"])
def test_configs_shipped_with_the_exporter_fit_sdxl(family):
    """Tokenizers must give CLIP's ids; schedules and native sizes must be those of the family."""
    index = json.loads((CONFIGS / family / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionXLPipeline"
    for subfolder, pad in (("tokenizer", 49407), ("tokenizer_2", 0)):
        tokenizer = CLIPTokenizer.from_pretrained(CONFIGS / family / subfolder)
        ids = tokenizer("a photo of a cat", padding="max_length", max_length=9).input_ids
        assert ids == [49406, 320, 1125, 539, 320, 2368, 49407, pad, pad]
    schedule = json.loads((CONFIGS / family / "scheduler/scheduler_config.json").read_text())
    schedules.check(schedule)
    turbo = family == "sdxl_turbo"
    assert schedule["timestep_spacing"] == ("trailing" if turbo else "leading")
    unet = json.loads((CONFIGS / family / "unet/config.json").read_text())
    assert unet["sample_size"] * 8 == (512 if turbo else 1024)
