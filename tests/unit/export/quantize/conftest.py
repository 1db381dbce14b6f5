"""UNets: small untrained ones, and the SDXL-Turbo miniature with requests for pictures."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from miniatures.captions import TRAINING
from stepwise.description.graph_files import GRAPH
from stepwise.export.loading.source import open_source
from stepwise.export.options import FLOAT_BITS
from stepwise.export.preflight.smoke_test import Drawing
from stepwise.export.quantize.calibration.sampling import open_study
from stepwise.export.quantize.plan import Entry, Plan
from stepwise.export.quantize.recipe import Recipe
from stepwise.families import FAMILIES
from tests.conftest import ROOT
from tests.support.drawn import draw

# Layers that no method quantizes.
ENDS = ("conv_in", "conv_out")

# The structure of Stable Diffusion 1.5: convolutions around transformers, no pooled text.
SD15 = {
    "sample_size": 8,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 48,
    "attention_head_dim": 8,
    "norm_num_groups": 8,
}


def make(seed=0, **changes):
    torch.manual_seed(seed)
    return UNet2DConditionModel(**{**SD15, **changes}).eval().requires_grad_(False)


def feed(rows=2, seed=1, width=48):
    """Latents, timesteps and texts; all texts have the same large first token."""
    chance = torch.Generator().manual_seed(seed)
    texts = torch.randn(rows, 7, width, generator=chance)
    texts[:, 0] = 50 * torch.linspace(-1, 1, width)
    latents = torch.randn(rows, 4, 8, 8, generator=chance)
    return latents, torch.full((rows,), 249.0), texts


def run(unet, latents, timesteps, texts):
    dtype = next(unet.parameters()).dtype
    with torch.inference_mode():
        return unet(latents.to(dtype), timesteps, texts.to(dtype), return_dict=False)[0].float()


@pytest.fixture
def sd15():
    return make()


@pytest.fixture(scope="session")
def study():
    """A study of six pictures with the SDXL-Turbo miniature, so the last batch is smaller."""
    checkpoint = open_source(str(ROOT / "miniatures" / "sdxl_turbo"), FAMILIES["sdxl_turbo"])
    captions = tuple(scene.caption for scene in TRAINING[::100][:6])
    return open_study(checkpoint, Drawing(captions, 2, 0.0))


@pytest.fixture(scope="session")
def float_graph(families):
    """The float32 graph of the SDXL-Turbo miniature's UNet."""
    return families / "sdxl_turbo_unet" / "1" / GRAPH


@pytest.fixture(scope="session")
def drawn(checkpoints):
    return draw(checkpoints["sdxl_turbo"])


@pytest.fixture(scope="session")
def recipe(drawn):
    """Makes a recipe with one bit width for all linear layers and 8 bits for convolutions."""

    def make(weight_bits, activation_bits, block=64):
        entries = {layer.name: Entry(FLOAT_BITS, FLOAT_BITS) for layer in drawn.layers}
        for layer in drawn.layers:
            if layer.name not in ENDS and weight_bits != FLOAT_BITS:
                bits = (weight_bits, activation_bits) if layer.is_linear else (8, 8)
                entries[layer.name] = Entry(*bits)
        plan = Plan("miniatures/sdxl_turbo", "", 0, entries)
        return Recipe(drawn.layers, plan, drawn.activations, drawn.first, block)

    return make
