"""The SD3 miniature is a checkpoint like any other: real classes, real layout, half precision."""

from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from safetensors import safe_open
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from miniatures.captions import SCENES

CHECKPOINT = Path(__file__).parents[3] / "miniatures" / "sd3"
MAX_MEGABYTES = 20


@pytest.fixture(scope="module")
def pipeline():
    return StableDiffusion3Pipeline.from_pretrained(CHECKPOINT, local_files_only=True)


def test_all_components_are_of_the_real_classes(pipeline):
    assert {name: type(part) for name, part in pipeline.components.items() if part is not None} == {
        "transformer": SD3Transformer2DModel,
        "scheduler": FlowMatchEulerDiscreteScheduler,
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModelWithProjection,
        "text_encoder_2": CLIPTextModelWithProjection,
        "text_encoder_3": T5EncoderModel,
        "tokenizer": CLIPTokenizer,
        "tokenizer_2": CLIPTokenizer,
        "tokenizer_3": T5Tokenizer,
    }


def test_the_weights_are_half_precision_finite_and_small():
    files = list(CHECKPOINT.rglob("*.safetensors"))
    assert len(files) == 5
    for path in files:
        with safe_open(path, "pt") as weights:
            for key in weights.keys():  # noqa: SIM118
                tensor = weights.get_tensor(key)
                assert tensor.dtype == torch.float16, f"{path}: {key}"
                assert tensor.isfinite().all(), f"{path}: {key}"
    size = sum(path.stat().st_size for path in CHECKPOINT.rglob("*") if path.is_file()) / 1e6
    print(f"{size:.1f} MB, ceiling {MAX_MEGABYTES} MB")
    assert size <= MAX_MEGABYTES


@pytest.mark.parametrize("suffix", ["", "_2", "_3"])
def test_every_word_of_a_caption_is_one_known_token(pipeline, suffix):
    tokenizer = getattr(pipeline, f"tokenizer{suffix}")
    encoder = getattr(pipeline, f"text_encoder{suffix}")
    special = 1 if suffix == "_3" else 2
    for scene in SCENES:
        ids = tokenizer(scene.caption).input_ids
        assert len(ids) == len(scene.caption.split()) + special <= tokenizer.model_max_length
        assert 0 <= min(ids) <= max(ids) < encoder.config.vocab_size
        assert tokenizer.unk_token_id not in ids[:-1], scene.caption
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == scene.caption


def test_the_empty_caption_is_tokenized(pipeline):
    lengths = [
        len(tokenizer("").input_ids)
        for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2, pipeline.tokenizer_3)
    ]
    assert lengths == [2, 2, 1]
