"""Stock quantizers on the SDXL-Turbo miniature: they work, but lose more than MixDQ."""

import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from benchmarks.quantization.baselines import (
    DEFAULT,
    SMOOTHQUANT,
    fake_quantize,
    naive,
    stock,
    write_fake_quantized,
)
from stepwise.export.modules.sdxl_unet import SdxlUnet
from stepwise.export.quantize.graphs.onnxruntime_graph import write
from stepwise.families import FAMILIES
from tests.conftest import further
from tests.unit.export.quantize.graphs.test_onnxruntime_graph import distance

# Signal to noise of the UNet's output, in decibels; a lower value would be an unfair baseline.
FLOOR = 20.0
SIZES = {"batch": 2, "height": 12, "width": 16, "text": 20}


@pytest.fixture(scope="module")
def ours(float_graph, recipe, drawn, tmp_path_factory):
    path = write(float_graph, recipe(8, 8), tmp_path_factory.mktemp("ours"))
    return path, distance(path, drawn.calls)


def test_stock_static_quantization(float_graph, drawn, ours, tmp_path):
    path = stock(float_graph, [feed for feed, _ in drawn.calls], tmp_path)
    found, (our_path, best) = distance(path, drawn.calls), ours
    print(f"stock {found:.1f} dB, ours {best:.1f}, {FLOOR}")
    assert FLOOR <= found < best
    assert path.stat().st_size < 1.1 * our_path.stat().st_size


@pytest.mark.parametrize("config", [SMOOTHQUANT, further(DEFAULT)])
def test_modelopt(checkpoints, drawn, ours, config, tmp_path):
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        checkpoints["sdxl_turbo"], local_files_only=True, torch_dtype=torch.float32
    )
    unet = pipeline.unet

    @torch.no_grad()
    def draw():
        for feed, _ in drawn.calls:
            given = {name: torch.from_numpy(values) for name, values in feed.items()}
            text_embeds, time_ids = given.pop("text_embeds"), given.pop("time_ids")
            added = {"text_embeds": text_embeds, "time_ids": time_ids}
            unet(
                given["latents"],
                given["timestep"],
                given["encoder_hidden_states"],
                added_cond_kwargs=added,
            )

    fake_quantize(unet, config, draw)
    path = tmp_path / "model.onnx"
    write_fake_quantized(SdxlUnet(unet).eval(), FAMILIES["sdxl_turbo"].denoiser, SIZES, path)
    found, (_, best) = distance(path, drawn.calls), ours
    print(f"{config} {found:.1f} dB, ours {best:.1f}, {FLOOR}")
    assert FLOOR <= found < best


def test_the_naive_baseline_has_no_special_layers(drawn):
    layers = naive(drawn.layers)
    assert [layer.name for layer in layers] == [layer.name for layer in drawn.layers]
    assert not any(layer.split or layer.begins_alike for layer in layers)
