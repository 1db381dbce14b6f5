"""SDXL from a single file and with a LoRA, compared with diffusers on the same files."""

import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from benchmarks.harness.diffusers_baseline import psnr
from stepwise.client import Client
from stepwise.server.process import serving
from tests.conftest import ROOT, export
from tests.support.originals import write_original

FLOOR_DB = 40.0
# With the LoRA, pictures must differ from those without it; at half scale, shapes are half filled.
CEILING_DB = {0.5: 35.0, 1.0: 30.0}
PROMPT = "a large green square in the center on a white background"
SDXL, TURBO = (ROOT / "miniatures" / family for family in ("sdxl", "sdxl_turbo"))
LORA = ROOT / "miniatures" / "sdxl_outline" / "pytorch_lora_weights.safetensors"
STEPS, GUIDANCE_SCALE = 20, 5.0


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The miniatures in the layout of SDXL's authors."""
    folder = tmp_path_factory.mktemp("files")
    return {
        path: write_original(path, folder / f"{path.name}.safetensors") for path in (SDXL, TURBO)
    }


@pytest.fixture(scope="module")
def client(request, files, tmp_path_factory):
    """A client of a server with the checkpoint sources that the selected tests use."""
    sources = {
        "plain": ("sdxl", SDXL),
        "outline": ("sdxl", SDXL, "--lora", LORA),
        "half_outline": ("sdxl", SDXL, "--lora", f"{LORA}:0.5"),
        "file": ("sdxl", files[SDXL], "--config", SDXL),
        "turbo_file": ("sdxl_turbo", files[TURBO], "--config", TURBO, "--lora", LORA),
    }
    chosen = {
        name
        for item in request.session.items
        for marker in item.iter_markers("draws")
        for name in marker.args
    }
    repository = tmp_path_factory.mktemp("sources")
    for name in chosen:
        family, checkpoint, *options = sources[name]
        where = ("--repository", str(repository), "--name", name)
        export(family, checkpoint, *where, *map(str, options))
    with serving(repository, names=chosen) as server:
        yield Client(server.grpc_url)


def draw(pipeline, seed, steps, guidance_scale):
    return pipeline(
        PROMPT,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
    ).images[0]


def near(served, expected):
    closeness = psnr(served.image, (expected * 255).round().astype("uint8"))
    print(f"PSNR {closeness:.1f} dB, floor {FLOOR_DB} dB")
    assert closeness >= FLOOR_DB


@pytest.mark.further
@pytest.mark.draws("file")
def test_a_checkpoint_from_one_file(client, files):
    served = client.pictures("file", PROMPT, steps=STEPS, seed=3, guidance_scale=GUIDANCE_SCALE)[0]
    oracle = StableDiffusionXLPipeline.from_single_file(
        str(files[SDXL]), config=str(SDXL), local_files_only=True, torch_dtype=torch.float32
    )
    near(served, draw(oracle, 3, STEPS, GUIDANCE_SCALE))


@pytest.mark.draws("turbo_file")
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_turbo_from_one_file_with_a_lora(client, files, steps):
    served = client.pictures("turbo_file", PROMPT, steps=steps, seed=4)[0]
    oracle = StableDiffusionXLPipeline.from_single_file(
        str(files[TURBO]), config=str(TURBO), local_files_only=True, torch_dtype=torch.float32
    )
    oracle.load_lora_weights(LORA.parent)
    near(served, draw(oracle, 4, steps, 0.0))


@pytest.mark.draws("plain")
@pytest.mark.parametrize(
    ("name", "scale"),
    [
        pytest.param("outline", 1.0, marks=pytest.mark.draws("outline")),
        pytest.param(
            "half_outline", 0.5, marks=[pytest.mark.draws("half_outline"), pytest.mark.further]
        ),
    ],
)
def test_a_lora_at_its_scale(client, name, scale):
    settings = {"steps": STEPS, "seed": 5, "guidance_scale": GUIDANCE_SCALE}
    served, plain = (client.pictures(n, PROMPT, **settings)[0] for n in (name, "plain"))
    oracle = StableDiffusionXLPipeline.from_pretrained(
        SDXL, local_files_only=True, torch_dtype=torch.float32
    )
    oracle.load_lora_weights(LORA.parent)
    oracle.fuse_lora(lora_scale=scale)
    near(served, draw(oracle, 5, STEPS, GUIDANCE_SCALE))
    effect = psnr(served.image, plain.image)
    print(f"without it {effect:.1f} dB, ceiling {CEILING_DB[scale]} dB")
    assert effect < CEILING_DB[scale]
