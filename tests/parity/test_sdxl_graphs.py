"""SDXL's graphs against the modules of diffusers, with none of our modules in between."""

import json
import shutil

import numpy as np
import onnxruntime
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from tokenizers import Tokenizer

from stepwise.export.errors import CheckpointError
from stepwise.export.loading.loader import load
from stepwise.export.loading.source import open_checkpoint
from stepwise.families.sdxl import SDXL

FLOOR = 1e-4
# Traced at 12 x 16. The UNet halves sides twice; 170 x 96 is 1360 x 768 pixels at true size.
SIDES = [(16, 16), (10, 24), (6, 10), (9, 13), (7, 5), (2, 3), (170, 96), (96, 170)]
PROMPTS = ["a large red star in the top left on a white background", "", "🦊 und mehr"]


def run(families, name, **inputs):
    path = families / f"sdxl_{name}" / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def near(got, expected):
    difference = float(np.abs(got - expected.detach().numpy()).max())
    print(f"{difference:.2e}, {FLOOR:g}")
    assert got.shape == tuple(expected.shape)
    assert difference <= FLOOR


@pytest.fixture(scope="module")
def unet(checkpoints):
    return UNet2DConditionModel.from_pretrained(checkpoints["sdxl"] / "unet").float().eval()


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), SIDES)
def test_the_unet_graph_matches_diffusers_at_any_side(families, unet, height, width):
    torch.manual_seed(height)
    batch = 1 if height * width > 1000 else 3
    latents, timestep = torch.randn(batch, 4, height, width), 1000 * torch.rand(batch)
    text, pooled = torch.randn(batch, 20, 160), torch.randn(batch, 96)
    time_ids = torch.randint(2048, (batch, 6)).float()
    added = {"text_embeds": pooled, "time_ids": time_ids}
    expected = unet(latents, timestep, text, added_cond_kwargs=added).sample
    (got,) = run(
        families,
        "unet",
        latents=latents.numpy(),
        timestep=timestep.numpy(),
        encoder_hidden_states=text.numpy(),
        text_embeds=pooled.numpy(),
        time_ids=time_ids.numpy(),
    )
    near(got, expected)


@torch.no_grad()
def test_each_row_of_a_clip_batch_has_its_own_clip_skip(families, checkpoints):
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        checkpoints["sdxl"], torch_dtype=torch.float32
    )
    embeddings = {}
    for name in ("clip_l", "clip_g"):
        path = families / "sdxl" / "tokenizers" / f"{name}.json"
        tokenizer = Tokenizer.from_file(str(path))
        ids = np.asarray([tokenizer.encode(prompt).ids for prompt in PROMPTS])
        skips = np.arange(len(PROMPTS))[:, None]
        embeddings[name] = run(families, name, ids=ids, clip_skip=skips)
    hidden = np.concatenate([outputs[0] for outputs in embeddings.values()], axis=-1)
    for row, prompt in enumerate(PROMPTS):
        expected, _, pooled, _ = pipeline.encode_prompt(
            prompt, do_classifier_free_guidance=False, clip_skip=row
        )
        near(hidden[row : row + 1], expected)
        near(embeddings["clip_g"][1][row : row + 1], pooled)


@torch.no_grad()
def test_pictures_are_rounded_exactly_as_diffusers_rounds_them(checkpoints):
    folder = checkpoints["sdxl"]
    vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).eval()
    latents = torch.randn(2, 4, 10, 6, generator=torch.Generator().manual_seed(1))
    decoded = vae.decode(latents / vae.config.scaling_factor).sample
    pictures = VaeImageProcessor().postprocess(decoded, output_type="pil")
    got = load(open_checkpoint(folder, SDXL), SDXL.decoder)(latents).numpy()
    assert np.array_equal(got, np.stack([np.asarray(picture) for picture in pictures]))


@pytest.mark.parametrize(
    ("option", "value"), [("time_cond_proj_dim", 16), ("in_channels", 9)], ids=["lcm", "inpainting"]
)
def test_a_unet_with_other_inputs_is_refused(checkpoints, tmp_path, option, value):
    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoints["sdxl"], folder)
    config = json.loads((folder / "unet" / "config.json").read_text())
    made = UNet2DConditionModel.from_config({**config, option: value})
    made.save_pretrained(folder / "unet")
    with pytest.raises(CheckpointError, match=f"the UNet has {option}={value}"):
        load(open_checkpoint(folder, SDXL), SDXL.denoiser)
