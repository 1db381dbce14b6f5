import itertools
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.embeddings import PatchEmbed
from tokenizers import Tokenizer

from stepwise.export.errors import GraphError, ParityError
from stepwise.export.loading.loader import load
from stepwise.export.loading.source import open_checkpoint
from stepwise.export.modules.sd3_transformer import CroppedPatches
from stepwise.export.onnx.exporter import check_graph, write_graph
from stepwise.export.onnx.parity import check, compare, expect, measure
from stepwise.export.onnx.shapes import traced
from stepwise.families import FAMILIES
from tests.support.paths import ROOT

MINIATURE = ROOT / "miniatures" / "sd3"
SD3 = FAMILIES["sd3"]
FLOOR = 1e-4
# Latents are traced at 6 x 8, texts at 15 and 24 tokens. Odd counts of 2 x 2 patches are
# error-prone; the position embeddings cover latents up to 48 x 48.
SIZES = [
    {"batch": 1, "tokens": 20, "text": 276, "height": 12, "width": 12},
    {"batch": 5, "tokens": 9, "text": 40, "height": 10, "width": 4},
    {"batch": 4, "tokens": 3, "text": 1, "height": 2, "width": 46},
]
PROMPTS = ["a large red star in the top left on a white background", "", "🦊 und mehr"]


@pytest.fixture(scope="module")
def checkpoint():
    return open_checkpoint(MINIATURE, SD3)


@pytest.fixture(scope="module")
def diffusers_pipeline():
    return StableDiffusion3Pipeline.from_pretrained(MINIATURE, torch_dtype=torch.float32)


def graph(repository, name):
    return repository / f"sd3_{name}" / "1" / "model.onnx"


def run(repository, name, **inputs):
    session = onnxruntime.InferenceSession(
        graph(repository, name), providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)


@pytest.mark.parametrize("component", SD3.components, ids=lambda c: c.name)
def test_graphs_match_torch_at_untraced_sizes(repository, checkpoint, component):
    examples = expect(load(checkpoint, component), component, SIZES)
    rows = compare(component, graph(repository, component.name), examples)
    assert len(rows) == len(SIZES) * len(component.outputs)
    for row in rows:
        print(f"{row.component} {row.output} {row.shape}: {row.difference:.2e}, {row.tolerance:g}")
        assert row.ok, row
        assert row.tolerance == (1 if row.output == "image" else FLOOR)
        assert row.output != "image" or row.changed < 1e-3, row


@torch.no_grad()
@pytest.mark.parametrize("sizes", SIZES[:2], ids=["square", "narrow"])
def test_the_decoder_matches_torch_before_it_rounds(repository, checkpoint, sizes, tmp_path):
    module = load(checkpoint, SD3.decoder)
    model = onnx.load(graph(repository, "vae_decoder"))
    (rounding,) = (node for node in model.graph.node if node.op_type == "Round")
    model.graph.output.append(onnx.ValueInfoProto(name=rounding.input[0]))
    onnx.save(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    (latents,) = module.example(sizes)
    levels = session.run([rounding.input[0]], {"latents": latents.numpy()})[0]
    decoded = module.model.decode(latents / module.scaling + module.shift).sample
    reference = (decoded * 0.5 + 0.5).clamp(0, 1).numpy()
    difference = np.abs(levels / 255 - reference).max()
    print(f"images in [0, 1] before rounding: {difference:.1e}, floor {FLOOR:.0e}")
    assert difference <= FLOOR


@torch.no_grad()
@pytest.mark.parametrize("grid", [24, 23])
def test_cropped_position_embeddings_match_diffusers(grid):
    torch.manual_seed(0)
    original = PatchEmbed(8, 8, 2, in_channels=16, embed_dim=12, pos_embed_max_size=grid)
    module = CroppedPatches(original)
    for height, width in itertools.product(range(1, grid + 1), (1, 2, 7, 22, 23)):
        latents = torch.randn(1, 16, 2 * height, 2 * width)
        assert torch.equal(module(latents), original(latents)), (height, width)


@torch.no_grad()
def test_the_transformer_graph_matches_the_model_of_diffusers(repository):
    """Uses none of our modules; the latents are those of an 80 x 112 image."""
    torch.manual_seed(1)
    model = SD3Transformer2DModel.from_pretrained(MINIATURE / "transformer").float().eval()
    latents, timestep = torch.randn(3, 16, 10, 14), torch.tensor([1000.0, 517.3, 0.25])
    text, pooled = torch.randn(3, 40, 160), torch.randn(3, 144)
    expected = model(latents, text, pooled, timestep).sample
    (got,) = run(
        repository,
        "transformer",
        latents=latents.numpy(),
        timestep=timestep.numpy(),
        encoder_hidden_states=text.numpy(),
        pooled_projections=pooled.numpy(),
    )
    near(got, expected)


@pytest.mark.parametrize(("name", "index"), [("clip_l", 0), ("clip_g", 1)])
def test_clip_graphs_and_tokenizers_give_diffusers_embeddings(
    repository, diffusers_pipeline, name, index
):
    ids = tokenize(repository, name)
    for skip in (0, 1):
        fed = {"ids": ids, "clip_skip": np.full((len(ids), 1), skip)}
        hidden, pooled = run(repository, name, **fed)
        expected = diffusers_pipeline._get_clip_prompt_embeds(
            PROMPTS, clip_skip=skip, clip_model_index=index
        )
        near(hidden, expected[0])
        near(pooled, expected[1])


def test_the_t5_graph_and_tokenizer_give_diffusers_embeddings(repository, diffusers_pipeline):
    (hidden,) = run(repository, "t5", ids=tokenize(repository, "t5"))
    near(hidden, diffusers_pipeline._get_t5_prompt_embeds(PROMPTS, max_sequence_length=20))


def tokenize(repository, name):
    path = repository / "sd3" / "tokenizers" / f"{name}.json"
    tokenizer = Tokenizer.from_file(str(path))
    return np.asarray([tokenizer.encode(prompt).ids for prompt in PROMPTS])


def near(got, expected):
    difference = float(np.abs(got - expected.detach().numpy()).max())
    print(f"{difference:.2e}, {FLOOR:g}")
    assert got.shape == tuple(expected.shape)
    assert difference <= FLOOR


@torch.no_grad()
def test_pictures_are_rounded_exactly_as_diffusers_rounds_them(checkpoint):
    """The exported module against the autoencoder and image processor of diffusers."""
    vae = AutoencoderKL.from_pretrained(MINIATURE / "vae", torch_dtype=torch.float32).eval()
    latents = torch.randn(2, 16, 10, 6, generator=torch.Generator().manual_seed(1))
    decoded = vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor).sample
    pictures = VaeImageProcessor().postprocess(decoded, output_type="pil")
    got = load(checkpoint, SD3.decoder)(latents).numpy()
    assert got.dtype == np.uint8
    assert np.array_equal(got, np.stack([np.asarray(picture) for picture in pictures]))


@pytest.mark.parametrize("shape", [(1, 2, 2), (4, 3, 1), (1, 1, 3)])
def test_previews_a_quarter_of_the_side_decode(repository, checkpoint, shape):
    batch, height, width = shape
    sizes = [{"batch": batch, "height": height, "width": width}]
    examples = expect(load(checkpoint, SD3.decoder), SD3.decoder, sizes)
    (row,) = compare(SD3.decoder, graph(repository, "vae_decoder"), examples)
    assert row.ok, row
    assert row.shape == (batch, 8 * height, 8 * width, 3)


def test_a_missing_t5_gives_zeros_of_any_length(checkpoint, tmp_path):
    t5 = SD3.encoders[2]
    module = load(type(checkpoint)(checkpoint.folder, SD3, ("t5",)), t5)
    path = write_graph(module, t5, traced(checkpoint.sides, 8, 256), tmp_path)
    sizes = [{"batch": 1, "tokens": 256}, {"batch": 3, "tokens": 7}]
    rows = compare(t5, path, expect(module, t5, sizes))
    assert [row.shape for row in rows] == [(1, 256, 160), (3, 7, 160)]
    assert all(row.difference == 0 for row in rows)


def test_weights_too_large_for_a_graph_lie_next_to_it(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("stepwise.export.onnx.exporter.LARGEST_INLINE_BYTES", 10_000)
    encoder, module = SD3.encoders[0], load(checkpoint, SD3.encoders[0])
    (tmp_path / "partial").mkdir()
    path = write_graph(module, encoder, traced(checkpoint.sides, 8, 20), tmp_path / "partial")
    moved = path.parent.rename(tmp_path / "1") / path.name
    assert [file.name for file in sorted(moved.parent.iterdir())] == [
        "model.onnx",
        "model.onnx.data",
    ]
    check(compare(encoder, moved, expect(module, encoder, SIZES)))


def test_a_graph_with_other_tensors_than_the_spec_is_refused(repository):
    with pytest.raises(GraphError, match="clip_skip"):
        check_graph(graph(repository, "clip_l"), SD3.encoders[2])
    with pytest.raises(GraphError, match="image is UINT8"):
        check_graph(graph(repository, "vae_decoder"), other_picture())


def other_picture():
    """The decoder's spec with a fixed image size."""
    picture = replace(SD3.decoder.outputs[0], dims=("batch", 64, 64, 3))
    return replace(SD3.decoder, outputs=(picture,))


@pytest.mark.parametrize("damage", [2e-4, np.nan])
def test_a_graph_with_wrong_outputs_is_refused(damage):
    reference = np.ones((2, 3), np.float32)
    row = measure("t5", SD3.encoders[2].outputs[0], reference, reference + np.float32(damage))
    with pytest.raises(ParityError, match="t5: hidden_states"):
        check([row])
    wrong = measure("t5", SD3.encoders[2].outputs[0], reference, np.ones((1, 3), np.float32))
    with pytest.raises(ParityError, match="inf"):
        check([wrong])
