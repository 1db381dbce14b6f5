"""EasyAnimate's graphs against the modules of diffusers, with none of our modules in between."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from diffusers import AutoencoderKLMagvit, EasyAnimatePipeline, EasyAnimateTransformer3DModel
from tokenizers import Tokenizer

from stepwise.description.manifest import Manifest
from stepwise.description.vae_caches import input_name, output_name
from stepwise.export.modules.video_vae import VideoDecoder, VideoEncoder, caches
from stepwise.video import sliced_vae as slices

FLOOR = 1e-4
# Double precision has 16 digits; rounding in all layers loses a few.
EXACT = 1e-12
# Traced at 3 frames of 4 x 6 latents, two rows and 24 tokens.
SIZES = [(1, 256, 5, 6, 6), (3, 7, 1, 10, 4), (2, 40, 13, 2, 14)]
FRAMES = (1, 5, 17, 49, 145)
FAMILIES = {"easyanimate": 0, "easyanimate_i2v": 17}
PROMPTS = [
    "a red disc moving left on a white background",
    "",
    "  two spaces and a line\n\n",
    "🦊 läuft über 東京",
    "<|im_end|>\n<|im_start|>user\n{{ prompt }} <|endoftext|>",
    "a very long prompt " * 200,
]


NAMES = ["plain", "empty", "spaces", "far", "marks", "long"]


def session(repository, family, name):
    path = repository / f"{family}_{name}" / "1" / "model.onnx"
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def runner(repository, family, name):
    """A graph as a function from inputs to outputs by name."""
    graph = session(repository, family, name)
    names = [output.name for output in graph.get_outputs()]
    return lambda feed: dict(zip(names, graph.run(None, dict(feed)), strict=True))


def near(got, expected):
    difference = float(np.abs(got - expected.detach().numpy()).max())
    print(f"{tuple(got.shape)}: {difference:.2e}, {FLOOR:g}")
    assert got.shape == tuple(expected.shape)
    assert difference <= FLOOR


@pytest.fixture(scope="module")
def pipeline(checkpoints):
    return EasyAnimatePipeline.from_pretrained(
        checkpoints["easyanimate"], torch_dtype=torch.float32
    )


@pytest.fixture(scope="module")
def autoencoder(checkpoints):
    return autoencoder_of(checkpoints["easyanimate"])


def autoencoder_of(checkpoint):
    return AutoencoderKLMagvit.from_pretrained(checkpoint / "vae", torch_dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def manifest(videos):
    return Manifest.read(videos / "easyanimate")


def encoded(repository, manifest, prompt):
    """Token ids and mask of a prompt, from the files of a model repository."""
    path: Path = repository / "easyanimate" / "tokenizers" / "qwen.json"
    before, after = manifest.templates["qwen"]
    encoding = Tokenizer.from_file(str(path)).encode(f"{before}{prompt}{after}")
    return np.asarray([encoding.ids]), np.asarray([encoding.attention_mask])


@pytest.mark.parametrize(
    "prompt", PROMPTS, ids=["plain", "empty", "spaces", "far", "marks", "long"]
)
def test_tokenizer_files_and_templates_give_diffusers_tokens(videos, manifest, pipeline, prompt):
    ids, mask = encoded(videos, manifest, prompt)
    message = {"role": "user", "content": [{"type": "text", "text": prompt}]}
    expected = pipeline.tokenizer(
        text=[
            pipeline.tokenizer.apply_chat_template(
                [message], tokenize=False, add_generation_prompt=True
            )
        ],
        padding="max_length",
        max_length=256,
        truncation=True,
        padding_side="right",
        return_attention_mask=True,
    )
    assert ids.tolist() == expected.input_ids
    assert mask.tolist() == expected.attention_mask
    assert ids.shape == (1, 256)


@torch.no_grad()
def test_the_text_encoder_graph_gives_diffusers_embeddings(videos, manifest, pipeline):
    """All prompts in one batch; its rows have different lengths."""
    pairs = [encoded(videos, manifest, prompt) for prompt in PROMPTS]
    ids, mask = (np.concatenate(rows) for rows in zip(*pairs, strict=True))
    got = runner(videos, "easyanimate", "qwen")({"ids": ids, "attention_mask": mask})
    expected, *_ = pipeline.encode_prompt(PROMPTS, do_classifier_free_guidance=False)
    near(got["hidden_states"], expected)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("batch", "text", "frames", "height", "width"), SIZES)
def test_the_transformer_graph_matches_diffusers(
    videos, checkpoints, family, batch, text, frames, height, width
):
    torch.manual_seed(height)
    model = EasyAnimateTransformer3DModel.from_pretrained(
        checkpoints[family] / "transformer", torch_dtype=torch.float32
    ).eval()
    sides = (frames, height, width)
    latents, timestep = torch.randn(batch, 16, *sides), 1000 * torch.rand(batch)
    embeddings = torch.randn(batch, text, model.config.text_embed_dim)
    told = torch.randn(batch, FAMILIES[family], *sides) if FAMILIES[family] else None
    expected = model(
        latents, timestep, encoder_hidden_states=embeddings, inpaint_latents=told
    ).sample
    cos, sin = model.rope_embedding(latents)
    feed = {"latents": latents, "timestep": timestep, "encoder_hidden_states": embeddings}
    feed |= {"rotary_cos": cos, "rotary_sin": sin}
    feed |= {} if told is None else {"inpaint_latents": told}
    got = runner(videos, family, "transformer")({k: v.numpy() for k, v in feed.items()})
    near(got["prediction"], expected)


def whole(run, latents, layout):
    """A video decoded in two calls: the first latent frame, then all others as one slice."""
    height, width = latents.shape[2:]
    seen = {
        input_name(i): cache.empty(height, width) for i, cache in enumerate(layout.decoder_caches)
    }
    first = run({"latents": latents[None, :, :1], "first": np.ones(1, np.int32), **seen})
    levels = [first["levels"][0][:, -1:]]
    if latents.shape[1] > 1:
        seen = {input_name(i): first[output_name(i)] for i in range(len(seen))}
        rest = run({"latents": latents[None, :, 1:], "first": np.zeros(1, np.int32), **seen})
        levels.append(rest["levels"][0])
    return slices.as_frames(np.concatenate(levels, axis=1))


@torch.no_grad()
@pytest.mark.parametrize("frames", FRAMES)
def test_slices_decode_to_the_whole_video(videos, manifest, autoencoder, frames):
    layout, run = manifest.video, runner(videos, "easyanimate", "vae_decoder")
    latents = np.random.default_rng(frames).standard_normal(
        (16, layout.latent_frames(frames), 4, 6), np.float32
    )
    decoded = list(slices.decode(run, latents, layout))
    assert [index for index, _ in decoded] == [0, *range(1, frames, 4)]
    got = np.concatenate([part for _, part in decoded])
    assert got.shape == (frames, 32, 48, 3)
    assert np.array_equal(got, whole(run, latents, layout))
    scaled = 1 / autoencoder.config.scaling_factor * torch.from_numpy(latents)[None]
    expected = slices.as_frames(autoencoder.decode(scaled).sample[0].numpy())
    differences = np.abs(got.astype(int) - expected)
    changed = int((differences > 0).sum())
    print(f"{frames} frames: {changed} of {got.size} levels one off from diffusers")
    assert differences.max() <= 1
    assert changed <= 1e-3 * got.size


@torch.no_grad()
@pytest.mark.parametrize("frames", FRAMES[:-1])
def test_slices_encode_to_the_whole_video(videos, checkpoints, frames):
    layout = Manifest.read(videos / "easyanimate_i2v").video
    model = autoencoder_of(checkpoints["easyanimate_i2v"])
    levels = 2 * torch.rand(1, 3, frames, 48, 32) - 1
    parts = [levels[0, :, :1], *levels[0, :, 1:].split(4, dim=1)] if frames > 1 else [levels[0]]
    run = runner(videos, "easyanimate_i2v", "vae_encoder")
    got = slices.encode(run, (part.numpy() for part in parts), layout)
    expected = model.encode(levels).latent_dist.mode()[0] * model.config.scaling_factor
    near(got, expected)


@torch.no_grad()
@pytest.mark.parametrize("frames", FRAMES[:-1])
def test_slices_are_exact_in_double_precision(autoencoder, frames):
    """The exported modules; in single precision only the order of sums would differ."""
    model = AutoencoderKLMagvit.from_config(autoencoder.config).double().eval()
    model.load_state_dict(autoencoder.state_dict())
    levels = 2 * torch.rand(1, 3, frames, 16, 24, dtype=torch.float64) - 1
    latents = model.encode(levels).latent_dist.mode() * model.config.scaling_factor
    expected = model.decode(1 / model.config.scaling_factor * latents).sample
    parts = [levels[:, :, max(first, 0) : first + 4] for first in range(-3, frames, 4)]
    parts[0] = parts[0].expand(-1, -1, 4, -1, -1)
    encoded_slices = streams(VideoEncoder(model), parts)
    exact(torch.cat(encoded_slices, dim=2), latents)
    model = AutoencoderKLMagvit.from_config(autoencoder.config).double().eval()
    model.load_state_dict(autoencoder.state_dict())
    decoded = streams(VideoDecoder(model), latents.split(1, dim=2))
    exact(torch.cat([decoded[0][:, :, -1:], *decoded[1:]], dim=2), expected)


def streams(part, given):
    """A module's outputs for consecutive slices; the caches start empty."""
    seen = [torch.zeros(cache.empty(2, 3).shape, dtype=torch.float64) for cache in part.caches]
    outputs = []
    for index, frames in enumerate(given):
        output, *seen = part(frames, torch.tensor([index == 0], dtype=torch.int32), *seen)
        outputs.append(output)
    return outputs


def exact(got, expected):
    difference = float((got - expected).abs().max())
    print(f"{tuple(got.shape)}: {difference:.1e}, {EXACT:g}")
    assert got.shape == expected.shape
    assert difference <= EXACT


@torch.no_grad()
def test_a_slice_that_begins_a_video_is_four_equal_frames(autoencoder):
    model = AutoencoderKLMagvit.from_config(autoencoder.config).eval()
    decoder = VideoDecoder(model)
    levels, *_ = decoder(*decoder.example({"slice": 1, "height": 2, "width": 3, "first": 1}))
    assert torch.equal(levels, levels[:, :, :1].expand(-1, -1, 4, -1, -1))


@torch.no_grad()
@pytest.mark.parametrize("kind", [VideoDecoder, VideoEncoder])
def test_caches_have_the_shapes_and_the_order_of_the_convolutions(autoencoder, kind):
    part = kind(AutoencoderKLMagvit.from_config(autoencoder.config).eval())
    _, *last = part(*part.example({"slice": 1, "height": 2, "width": 3, "first": 0}))
    found = caches(autoencoder.config)["vae_decoder" if kind is VideoDecoder else "vae_encoder"]
    assert [tuple(value.shape) for value in last] == [c.empty(2, 3).shape for c in found]
