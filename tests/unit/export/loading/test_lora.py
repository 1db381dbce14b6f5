"""A fused LoRA has the effect of its separate layers; the error names a LoRA that does not fit."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from stepwise.export.checkpoint.lora_file import Lora, parse_lora
from stepwise.export.loading.lora import _PATTERN
from stepwise.export.loading.source import open_checkpoint, open_source
from stepwise.export.preflight.smoke_test import rehearse
from stepwise.export.repository.layout import describe
from tests.support import originals
from tests.support.family import SD3, SDXL, key, load_model
from tests.support.lora_files import ALPHA, LAYOUTS, RANK, TEXTS, chosen, draw_layers, write
from tests.unit.export.conftest import MINIATURE

# Float32 tolerance for sums in another order.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return originals.write(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture(scope="module")
def models(folder):
    """The models before any LoRA is fused."""
    checkpoint = open_source(str(folder), SDXL)
    return {subfolder: load_model(checkpoint, subfolder) for subfolder in ("unet", *TEXTS)}


@pytest.fixture(scope="module")
def layers(models):
    return draw_layers(models)


def fused(folder, *loras):
    checkpoint = open_source(str(folder), SDXL, loras=loras)
    return {subfolder: load_model(checkpoint, subfolder) for subfolder in ("unet", *TEXTS)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layer_of_every_layout_is_fused(folder, models, layers, tmp_path, layout):
    layers = chosen(layers, layout)
    path = write(tmp_path / "lora.safetensors", *LAYOUTS[layout](layers))
    changed, furthest = 0, 0.0
    for subfolder, model in fused(folder, f"{path}:0.5").items():
        before = models[subfolder].state_dict()
        for name, value in model.state_dict().items():
            key = (subfolder, name.removesuffix(".weight"))
            due = before[name]
            if name.endswith(".weight") and key in layers:
                down, up = layers[key]
                product = torch.einsum("or,ri->oi", up.flatten(1), down.flatten(1))
                due = due + 0.5 * ALPHA / RANK * product.reshape(due.shape)
                assert not torch.equal(value, before[name])
                changed += 1
            furthest = max(furthest, float((value - due).abs().max()))
    print(f"{changed} of {len(layers)} layers, {furthest:.1e} off, allowed {TOLERANCE}")
    assert changed == len(layers) > 30
    assert furthest < TOLERANCE


def added_by(model, layers, factor):
    """Register hooks that add a LoRA's output to the output of each of its layers."""

    def add(module, inputs, output, down, up):
        if isinstance(module, torch.nn.Linear):
            return output + factor * functional.linear(functional.linear(inputs[0], down), up)
        middle = functional.conv2d(inputs[0], down, None, module.stride, module.padding)
        return output + factor * functional.conv2d(middle, up)

    for name, module in model.named_modules():
        if ("unet", name) in layers:
            down, up = layers["unet", name]
            module.register_forward_hook(
                lambda module, inputs, output, down=down, up=up: add(
                    module, inputs, output, down, up
                )
            )


def test_the_fused_unet_matches_separate_low_rank_layers(folder, layers, tmp_path):
    path = write(tmp_path / "lora.safetensors", *LAYOUTS["kohya"](layers))
    plain = load_model(open_source(str(folder), SDXL), "unet")
    whole = load_model(open_source(str(folder), SDXL, loras=[f"{path}:0.7"]), "unet")
    inputs = {
        "sample": torch.randn(2, 4, 16, 16),
        "timestep": torch.tensor([999.0, 1.0]),
        "encoder_hidden_states": torch.randn(2, 20, 160),
        "added_cond_kwargs": {
            "text_embeds": torch.randn(2, 96),
            "time_ids": torch.full((2, 6), 64.0),
        },
    }
    with torch.inference_mode():
        before, got = plain(**inputs).sample, whole(**inputs).sample
        added_by(plain, layers, 0.7 * ALPHA / RANK)
        due = plain(**inputs).sample
    distance, effect = ((x - due).norm() / due.norm() for x in (got, before))
    print(f"{distance:.1e} off, allowed {TOLERANCE}; without the LoRA {effect:.1e}")
    assert distance < TOLERANCE
    assert effect > 0.01


def test_several_loras_add_up(folder, models, layers, tmp_path):
    first = write(tmp_path / "a.safetensors", *LAYOUTS["kohya"](layers))
    second = write(tmp_path / "b.safetensors", *LAYOUTS["PEFT"](layers))
    both = fused(folder, str(first), f"{second}:-1")
    one = fused(folder, str(first))
    for subfolder, model in both.items():
        before = models[subfolder].state_dict()
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, before[name], rtol=0, atol=TOLERANCE)
    name = "conv_in.weight"
    assert not torch.allclose(one["unet"].state_dict()[name], models["unet"].state_dict()[name])


def test_a_lora_is_fused_into_the_weights_of_a_file(folder, layers, tmp_path):
    lora = write(tmp_path / "lora.safetensors", *LAYOUTS["kohya"](layers))
    file = originals.write_original(folder, tmp_path / "model.safetensors", torch.float32)
    before = file.read_bytes()
    one = load_model(open_source(str(file), SDXL, folder, [str(lora)]), "unet").state_dict()
    whole = load_model(open_source(str(folder), SDXL, loras=[str(lora)]), "unet").state_dict()
    assert all(torch.equal(one[name], whole[name]) for name in whole)
    assert file.read_bytes() == before


@pytest.mark.parametrize("settings", [{}, {"alpha_pattern": {"to_q": 6.0}}, {"use_rslora": True}])
def test_settings_that_diffusers_saves_are_applied(folder, models, layers, tmp_path, settings):
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    down, up = layers["unet", name]
    metadata = {"lora_adapter_metadata": json.dumps({f"unet.{k}": settings[k] for k in settings})}
    tensors = {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    path = write(tmp_path / "lora.safetensors", tensors, metadata)
    factor = {(): 1.0, ("alpha_pattern",): 6.0 / RANK, ("use_rslora",): RANK**0.5}[tuple(settings)]
    got = fused(folder, str(path))["unet"].state_dict()[f"{name}.weight"]
    due = models["unet"].state_dict()[f"{name}.weight"] + factor * up @ down
    torch.testing.assert_close(got, due, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("pattern", ["to_q", r".*\.attn1\.to_q", r"^down.*\.to_q|up.*\.to_k"])
def test_patterns_of_peft_are_allowed(pattern):
    assert _PATTERN.fullmatch(pattern)


@pytest.mark.parametrize(
    ("text", "file", "scale"),
    [("a.safetensors", "a.safetensors", 1.0), ("b:0.5", "b", 0.5), ("c:d:-2", "c:d", -2.0)],
)
def test_a_scale_follows_the_last_colon(text, file, scale):
    lora = parse_lora(text)
    assert (str(lora.file), lora.scale) == (file, scale)


def test_a_file_may_have_a_colon_in_its_name(tmp_path):
    (tmp_path / "style:2").touch()
    assert parse_lora(f"{tmp_path}/style:2") == Lora(tmp_path / "style:2", 1.0)


def test_the_digest_covers_files_and_scales_but_not_paths(folder, layers, tmp_path):
    path = write(tmp_path / "lora.safetensors", *LAYOUTS["kohya"](layers))
    moved = shutil.copyfile(path, tmp_path / "moved.safetensors")

    def source(*loras):
        return key(open_source(str(folder), SDXL, loras=loras))

    assert source(str(path)) == source(f"{path}:1.0") == source(str(moved))
    seen = {source(), source(str(path)), source(f"{path}:0.5"), source(str(path), str(path))}
    edited = load_file(path)
    write(moved, {name: 2 * value for name, value in edited.items()})
    assert len(seen | {source(str(moved))}) == 5


def test_sd3_accepts_a_lora_and_its_manifest_lists_it(tmp_path):
    name, width = "transformer.transformer_blocks.0.attn.to_q", 192
    pair = {".lora_A.weight": (3, width), ".lora_B.weight": (width, 3)}
    tensors = {name + end: torch.ones(shape) for end, shape in pair.items()}
    path = write(tmp_path / "lora.safetensors", tensors)
    checkpoint = open_source(str(MINIATURE), SD3, loras=[f"{path}:0.25"])
    rehearse(checkpoint)
    manifest = describe(checkpoint, "sd3", {}, {})
    manifest.write(tmp_path)
    assert type(manifest).read(tmp_path) == manifest
    assert manifest.loras == (f"{path}:0.25",)
    assert describe(open_checkpoint(MINIATURE, SD3), "sd3", {}, {}).loras == ()
