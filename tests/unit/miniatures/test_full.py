import pytest
import torch
from diffusers import (
    AutoencoderKL,
    EasyAnimateTransformer3DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextModelWithProjection,
    Qwen2VLForConditionalGeneration,
    T5EncoderModel,
)

from miniatures import full

# Millions of weights of the real checkpoints (docs/sd3_medium.md, sdxl_turbo.md, easyanimate.md).
SIZES = {
    ("sd3", "transformer", SD3Transformer2DModel): 2028,
    ("sd3", "text_encoder_2", CLIPTextModelWithProjection): 695,
    ("sd3", "text_encoder_3", T5EncoderModel): 4762,
    ("sdxl", "unet", UNet2DConditionModel): 2567,
    ("sdxl_turbo_narrow", "text_encoder_2", CLIPTextModelWithProjection): 695,
    ("easyanimate", "transformer", EasyAnimateTransformer3DModel): 6814,
    ("easyanimate", "text_encoder", Qwen2VLForConditionalGeneration): 8291,
}


@pytest.mark.parametrize(
    ("family", "name", "kind"), SIZES, ids=["-".join(row[:2]) for row in SIZES]
)
def test_components_have_the_sizes_of_the_real_checkpoints(family, name, kind):
    model = full.build(full.config(family, name), kind)
    millions = sum(weight.numel() for weight in set(model.parameters())) / 1e6
    print(f"{millions:.0f} M, {SIZES[family, name, kind]}")
    assert round(millions) == SIZES[family, name, kind]


def test_a_component_is_written_once_in_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(full, "SHARD_BYTES", 1 << 20)
    small = {**full.SD3["vae"], "block_out_channels": [32, 32, 64, 64]}
    full.write_component(small, AutoencoderKL, tmp_path / "vae")
    shards = sorted((tmp_path / "vae").glob("*.safetensors"))
    assert len(shards) > 1
    stamps = [path.stat().st_mtime_ns for path in shards]
    full.write_component(small, AutoencoderKL, tmp_path / "vae")
    assert stamps == [path.stat().st_mtime_ns for path in shards]
    model = AutoencoderKL.from_pretrained(tmp_path / "vae", torch_dtype=torch.float16)
    assert model.config.block_out_channels == [32, 32, 64, 64]
    assert {weight.dtype for weight in model.parameters()} == {torch.float16}
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    assert len({tuple(weight.flatten()[:9].tolist()) for weight in matrices}) == len(matrices)
