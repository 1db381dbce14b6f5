"""The layers that quantization finds in UNets, with and without weights."""

import json

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from stepwise.export.errors import QuantizationError
from stepwise.export.quantize.layers import Group, find
from tests.conftest import ROOT

FAMILIES = ROOT / "export" / "stepwise" / "export" / "families" / "data"
# Settings of Stable Diffusion 1.5 that differ from the defaults of the class.
SD15 = {"cross_attention_dim": 768, "sample_size": 64}


def empty(config):
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(config)


@pytest.fixture(scope="module")
def sdxl():
    return empty(json.loads((FAMILIES / "sdxl" / "unet" / "config.json").read_text()))


@pytest.fixture(scope="module")
def miniature():
    return UNet2DConditionModel.from_pretrained(
        ROOT / "miniatures" / "sdxl_turbo", subfolder="unet", local_files_only=True
    )


def test_sdxl_has_the_794_layers_of_the_paper(sdxl):
    layers = find(sdxl)
    assert len(layers) == 794
    assert len({layer.name for layer in layers}) == 794
    linear = sum(torch.Size(layer.shape).numel() for layer in layers if layer.is_linear)
    convolved = sum(torch.Size(layer.shape).numel() for layer in layers if not layer.is_linear)
    print(f"{linear / 1e6:.0f}M in linear layers, {convolved / 1e6:.0f}M in convolutions")
    assert (round(linear / 1e6), round(convolved / 1e6)) == (2233, 333)


def test_sdxl_is_split_as_in_the_original(sdxl):
    splits = {layer.name: layer.split for layer in find(sdxl) if layer.split}
    assert list(splits.values()) == [1280, 1280, 1280, 1280, 640, 640, 640, 320, 320]


@pytest.mark.parametrize("name", ["sdxl", "miniature", "sd15"])
def test_every_split_is_at_the_join_of_the_skip_connection(name, request):
    unet = empty(SD15) if name == "sd15" else request.getfixturevalue(name)
    splits = {layer.name: layer for layer in find(unet) if layer.split}
    joined = [n for n, m in unet.named_modules() if n.startswith("up") and "conv_shortcut" in n]
    assert sorted(splits) == sorted(joined)
    skips = _skips(unet)
    for layer in splits.values():
        assert layer.shape[1] - layer.split == skips.pop(0), layer.name


def _skips(unet):
    """Channels of the skip connections in the order of the up blocks: last one first."""
    made = [unet.conv_in.out_channels]
    for block in unet.down_blocks:
        made += [resnet.out_channels for resnet in block.resnets]
        made += [sampler.out_channels for sampler in block.downsamplers or []]
    return made[::-1]


def test_content_layers_are_feed_forward_and_cross_attention(miniature):
    by_name = {layer.name: layer for layer in find(miniature)}
    content = [name for name, layer in by_name.items() if layer.group == Group.CONTENT]
    assert content
    for name in by_name:
        assert (name in content) == (".ff." in name or ".attn2." in name), name


def test_keys_and_values_of_cross_attention_have_a_constant_first_token(miniature):
    found = [layer.name for layer in find(miniature) if layer.begins_alike]
    assert found == [
        name for name, _ in miniature.named_modules() if name.endswith(("attn2.to_k", "attn2.to_v"))
    ]


def test_a_compiled_model_has_the_same_layers(miniature):
    assert find(torch.compile(miniature)) == find(miniature)


def test_another_model_is_refused_by_name():
    with torch.device("meta"):
        model = AutoencoderKL()
    with pytest.raises(QuantizationError, match="got a AutoencoderKL; MixDQ is for UNets"):
        find(model)
