"""The error of a LoRA that does not fit names its file and what is wrong."""

import json
import shutil

import pytest
import torch

from stepwise.export.checkpoint.lora_file import parse_lora
from stepwise.export.loading.source import open_source
from tests.support import originals
from tests.support.family import PARTS, SDXL, load_model
from tests.support.lora_files import write
from tests.unit.export.conftest import sentence

UNET = "lora_unet_input_blocks_3_1_proj_in"
SD1 = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
PAIR = {f"{UNET}.lora_down.weight": (3, 96), f"{UNET}.lora_up.weight": (96, 3)}
TO_Q = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
PEFT_PAIR = {f"{TO_Q}.lora_A.weight": (3, 96), f"{TO_Q}.lora_B.weight": (96, 3)}
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return originals.write(tmp_path_factory.mktemp("sdxl"))


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


def test_missing_and_unreadable_files(folder, tmp_path):
    refused(folder, tmp_path / "nowhere.safetensors", "no .safetensors file")
    tensors = {name: torch.ones(shape) for name, shape in PAIR.items()}
    path = write(tmp_path / "lora.safetensors", tensors)
    shutil.copyfile(path, tmp_path / "lora.pt")
    refused(folder, tmp_path / "lora.pt", "no .safetensors file")
    path.write_bytes(path.read_bytes()[:-7])
    refused(folder, path, "truncated")


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


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ("[" * 100_000, "its lora_adapter_metadata is no JSON object (maximum recursion depth"),
        ("7", "its lora_adapter_metadata is no JSON object"),
        (json.dumps({"unet.alpha_pattern": {"(to_q)+": 1}}), "got '(to_q)+' in unet.alpha_pattern"),
        (json.dumps({"unet.alpha_pattern": {".*.*.*.*": 1}}), "with up to 3 '.*'"),
    ],
    ids=["nested", "number", "repeated group", "stars"],
)
def test_settings_without_end_are_refused(folder, tmp_path, settings, problem):
    tensors = {name: torch.ones(shape) for name, shape in PEFT_PAIR.items()}
    path = write(tmp_path / "lora.safetensors", tensors, {"lora_adapter_metadata": settings})
    refused(folder, path, problem)
