"""SDXL's miniature is a small SDXL: the same kinds of layers, conditioning and layout."""

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionXLPipeline
from safetensors.torch import load_file

from miniatures import lora, sdxl, turbo, vae

CAPTION = "a small blue star in the top left on a gray background"
MAX_MEGABYTES = 20
# Layers of each kind that quantization finds, counted by a part of their names.
LAYERS = {
    "conv_shortcut": 8,
    "attn1.to_q": 11,
    "attn2.to_k": 11,
    "ff.net": 22,
    "time_emb_proj": 11,
    "add_embedding": 2,
    "time_embedding": 2,
    "downsamplers": 2,
    "upsamplers": 2,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """An untrained checkpoint on disk."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("miniatures") / "sdxl"
    vae.autoencoder(**sdxl.AUTOENCODER).half().save_pretrained(folder / "vae")
    sdxl.save(sdxl.Sdxl(), folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(checkpoint):
    return StableDiffusionXLPipeline.from_pretrained(checkpoint, local_files_only=True)


def test_all_components_are_of_the_real_classes(pipeline):
    kinds = {part: type(value) for part, value in pipeline.components.items() if value is not None}
    assert kinds == sdxl.PARTS
    assert pipeline.config.force_zeros_for_empty_prompt


def test_the_checkpoint_is_small(checkpoint):
    size = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file()) / 1e6
    print(f"{size:.1f} MB, ceiling {MAX_MEGABYTES} MB")
    assert size <= MAX_MEGABYTES


def test_the_unet_has_every_kind_of_layer(pipeline):
    layers = [
        name
        for name, layer in pipeline.unet.named_modules()
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
    ]
    assert {kind: sum(kind in name for name in layers) for kind in LAYERS} == LAYERS


@torch.no_grad()
def test_training_encodes_captions_as_the_pipeline_does(pipeline):
    model = sdxl.Sdxl()
    model.clip_l, model.clip_g = pipeline.text_encoder, pipeline.text_encoder_2
    embeddings, pooled = model.encode(model.tokenize([CAPTION]))
    expected, _, expected_pooled, _ = pipeline.encode_prompt(
        CAPTION, do_classifier_free_guidance=False
    )
    assert torch.equal(embeddings, expected)
    assert torch.equal(pooled, expected_pooled)


def test_turbo_differs_in_its_unet_and_its_sampler(checkpoint, pipeline):
    torch.manual_seed(1)
    output = checkpoint.with_name("sdxl_turbo")
    turbo.save(sdxl.unet(hidden=160, pooled=96), output)
    loaded = StableDiffusionXLPipeline.from_pretrained(output, local_files_only=True)
    assert isinstance(loaded.scheduler, EulerAncestralDiscreteScheduler)
    loaded.scheduler.set_timesteps(4)
    assert tuple(loaded.scheduler.timesteps.int().tolist()) == turbo.TIMESTEPS
    for name, same in (("vae", True), ("text_encoder_2", True), ("unet", False)):
        ours, theirs = (dict(getattr(p, name).named_parameters()) for p in (loaded, pipeline))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours) == same, name


@torch.no_grad()
def test_a_lora_file_reproduces_the_trained_layers(checkpoint, tmp_path):
    base, adapted = (
        StableDiffusionXLPipeline.from_pretrained(checkpoint, local_files_only=True).unet
        for _ in range(2)
    )
    lora.adapt(adapted)
    for name, weight in adapted.named_parameters():
        if name.endswith("lora_B"):
            weight.copy_(torch.randn_like(weight).half())
        elif name.endswith("lora_A"):
            weight.copy_(weight.half())
    lora.save(adapted, tmp_path)
    file = load_file(tmp_path / "pytorch_lora_weights.safetensors")
    layers = {key.removesuffix(".lora_A.weight") for key in file if key.endswith("lora_A.weight")}
    assert len(layers) == len(file) / 2 == 10 * 11
    for layer in layers:
        low, high = (file[f"{layer}.lora_{half}.weight"].float() for half in "AB")
        name = layer.removeprefix("unet.")
        merged = base.get_submodule(name).weight + high @ low
        assert torch.equal(merged, adapted.get_submodule(name).weight), layer


@torch.no_grad()
def test_normalizing_an_autoencoder_does_not_change_its_pictures():
    torch.manual_seed(0)
    images = torch.rand(32, 3, 64, 64) * 2 - 1
    model = vae.autoencoder(**sdxl.AUTOENCODER).eval()
    before = model.decode(model.encode(images).latent_dist.mean).sample
    vae.normalize(model, images)
    after = model.decode(model.encode(images).latent_dist.mean).sample
    error = (after - before).abs().max().item()
    print(f"pictures differ by {error:.1e}, ceiling 1e-5")
    assert error < 1e-5
    latents = vae.encode(model, images)
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 1e-3
    assert abs(latents.std().item() - 1) < 1e-3
    assert model.config.shift_factor is None
