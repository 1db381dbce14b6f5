"""A fused LoRA has the effect of its separate layers; the error names a LoRA that does not fit."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from stepwise.export.checkpoint.lora_file import Lora, parse_lora
from stepwise.export.errors import CheckpointError
from stepwise.export.loading.source import open_checkpoint, open_source
from stepwise.export.preflight.smoke_test import rehearse
from stepwise.export.repository.layout import describe
from tests.support import originals
from tests.support.family import PARTS, SD3, SDXL, key, load_model
from tests.unit.export.conftest import MINIATURE

RANK, ALPHA = 3, 1.5
# Float32 tolerance for sums in another order.
TOLERANCE = 1e-5
TEXTS = {"text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
ATTENTION = (".to_q", ".to_k", ".to_v", ".to_out.0", ".q_proj", ".k_proj", ".v_proj", ".out_proj")


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
    """Random down and up weights for every layer that a trainer may train."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator) / 10

    drawn = {}
    for subfolder, model in models.items():
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
                outputs, *inputs = module.weight.shape
                ends = (1,) * (len(inputs) - 1)
                drawn[subfolder, name] = draw(RANK, *inputs), draw(outputs, RANK, *ends)
    return drawn


def text_name(subfolder, name):
    """The layer's name in transformers up to 5.5, which all LoRA files use."""
    whole = subfolder == "text_encoder_2" or name.startswith("text_model.")
    return name if whole else f"text_model.{name}"


def kohya(layers, unet_name):
    tensors = {}
    for (subfolder, name), (down, up) in layers.items():
        named = unet_name(name) if subfolder == "unet" else text_name(subfolder, name)
        base = f"{TEXTS.get(subfolder, 'lora_unet')}_{named.replace('.', '_')}"
        tensors[f"{base}.lora_down.weight"], tensors[f"{base}.lora_up.weight"] = down, up
        tensors[f"{base}.alpha"] = torch.tensor(ALPHA)
    return tensors, None


def dotted(layers, *ends):
    tensors = {}
    for (subfolder, name), pair in layers.items():
        named = name if subfolder == "unet" else text_name(subfolder, name)
        for end, value in zip(ends, pair, strict=True):
            tensors[f"{subfolder}.{named}{end}.weight"] = value
    return tensors


def peft(layers):
    settings = {}
    for subfolder in ("unet", *TEXTS):
        settings |= {f"{subfolder}.r": 99, f"{subfolder}.lora_alpha": ALPHA}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(settings)}
    return dotted(layers, ".lora_A", ".lora_B"), metadata


def with_alphas(tensors, down):
    named = [name.removesuffix(down) for name in tensors if name.endswith(down)]
    return tensors | {f"{name}.alpha": torch.tensor(ALPHA) for name in named}, None


def diffusers(layers):
    return with_alphas(dotted(layers, ".lora.down", ".lora.up"), ".lora.down.weight")


def processors(layers):
    """diffusers' first layout, which covers only attention."""
    tensors = {}
    for name, value in dotted(layers, "_lora.down", "_lora.up").items():
        for old, new in (("to_out.0", "to_out"), ("q_proj", "to_q"), ("k_proj", "to_k"),
                         ("v_proj", "to_v"), ("out_proj", "to_out")):  # fmt: skip
            name = name.replace(f".{old}_lora", f".{new}_lora")
        for part in ("attn1", "attn2"):
            name = name.replace(f".{part}.", f".{part}.processor.")
        tensors[name] = value
    return with_alphas(tensors, "_lora.down.weight")


LAYOUTS = {
    "kohya": lambda layers: kohya(layers, originals.unet_name),
    "kohya with diffusers' blocks": lambda layers: kohya(layers, str),
    "PEFT": peft,
    "diffusers": diffusers,
    "diffusers' processors": processors,
}


def write(path, tensors, metadata=None):
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, metadata)
    return path


def chosen(layers, layout):
    if layout != "diffusers' processors":
        return layers
    return {key: pair for key, pair in layers.items() if key[1].endswith(ATTENTION)}


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


def sentence(action):
    with pytest.raises(CheckpointError) as error:
        action()
    message = str(error.value)
    print(message)
    assert "\n" not in message
    assert len(message) < 700
    return message


@pytest.mark.parametrize("scale", ["", "strong", "0", "nan", "inf", "1,5", "0.5:"])
def test_a_scale_that_is_no_number(scale):
    message = sentence(lambda: parse_lora(f"lora.safetensors:{scale}"))
    assert "other than 0" in message


def refused(folder, path, *words):
    def load_all():
        checkpoint = open_source(str(folder), SDXL, loras=[str(path)])
        for subfolder in PARTS:
            load_model(checkpoint, subfolder)

    message = sentence(load_all)
    assert all(word in message for word in (str(path), *words)), message


def test_missing_and_unreadable_files(folder, layers, tmp_path):
    refused(folder, tmp_path / "nowhere.safetensors", "no .safetensors file")
    path = write(tmp_path / "lora.safetensors", *LAYOUTS["kohya"](layers))
    shutil.copyfile(path, tmp_path / "lora.pt")
    refused(folder, tmp_path / "lora.pt", "no .safetensors file")
    path.write_bytes(path.read_bytes()[:-7])
    refused(folder, path, "truncated")


UNET = "lora_unet_input_blocks_3_1_proj_in"
SD1 = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
CASES = {
    "another model's layers": (
        {f"{SD1}.lora_down.weight": (3, 64), f"{SD1}.lora_up.weight": (64, 3)},
        ("names of kohya", "unet has none of 1 layers", "down_blocks.0.attentions.0"),
    ),
    "another model's blocks": (
        {
            "lora_unet_input_blocks_x_1_proj_in.lora_down.weight": (3, 64),
            "lora_unet_input_blocks_x_1_proj_in.lora_up.weight": (64, 3),
        },
        ("unknown to diffusers",),
    ),
    "another model's component": (
        {"transformer.out.lora_A.weight": (3, 64), "transformer.out.lora_B.weight": (64, 3)},
        ("names of PEFT", "sdxl has none of 1 layers", "transformer.out"),
    ),
    "no component": (
        {"mid_block.attentions.0.proj_in.lora.down.weight": (3, 128),
         "mid_block.attentions.0.proj_in.lora.up.weight": (128, 3)},
        ("names of diffusers", "sdxl has none of 1 layers", "mid_block.attentions.0.proj_in"),
    ),
    "no layer with weights": (
        {"unet.mid_block.lora_A.weight": (3, 64), "unet.mid_block.lora_B.weight": (64, 3)},
        ("unet has none of 1 layers", "mid_block"),
    ),
    "another width": (
        {f"{UNET}.lora_down.weight": (3, 320), f"{UNET}.lora_up.weight": (320, 3)},
        ("[320, 3] @ [3, 320]", "[96, 96]", "unet.down_blocks.1.attentions.0.proj_in"),
    ),
    "another rank": (
        {f"{UNET}.lora_down.weight": (3, 96), f"{UNET}.lora_up.weight": (96, 4)},
        ("ranks", UNET, "[3, 96]", "[96, 4]"),
    ),
    "no up": ({f"{UNET}.lora_down.weight": (3, 96)}, (f"no {UNET}.lora_up.weight",)),
    "no down": ({f"{UNET}.lora_up.weight": (96, 3)}, ("without the rest", UNET)),
    "nothing": ({}, ("not a LoRA in a known layout",)),
    "a checkpoint": ({"conv_in.weight": (3, 3)}, ("not a LoRA", "conv_in.weight", "kohya")),
    "DoRA": ({f"{UNET}.dora_scale": (96, 1)}, ("is a DoRA", "allowed are LoRA")),
    "LoHa": ({f"{UNET}.hada_w1_a": (96, 1)}, ("is a LoHa",)),
    "LoKr": ({f"{UNET}.lokr_w1": (96, 1)}, ("is a LoKr",)),
    "a core tensor": ({f"{UNET}.lora_mid.weight": (3, 3, 3, 3)}, ("core tensor",)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_lora_that_does_not_fit_is_named(folder, tmp_path, case):
    shapes, words = CASES[case]
    tensors = {name: torch.ones(shape) for name, shape in shapes.items()}
    refused(folder, write(tmp_path / "lora.safetensors", tensors), *words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({".lora_up.weight": 0.0}, ("would change nothing",)),
        ({".lora_up.weight": torch.nan}, (UNET, "not finite")),
        ({".lora_down.weight": torch.inf}, (UNET, "not finite")),
        ({".alpha": 0.0}, (UNET, "alpha of 0")),
    ],
)
def test_values_that_cannot_be_fused(folder, tmp_path, change, words):
    shapes = {".lora_down.weight": (3, 96), ".lora_up.weight": (96, 3), ".alpha": ()}
    tensors = {
        UNET + name: torch.full(shape, change.get(name, 1.0)) for name, shape in shapes.items()
    }
    refused(folder, write(tmp_path / "lora.safetensors", tensors), *words)


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
