"""A miniature is a regular checkpoint: the real classes, the real layout, half precision."""

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLMagvit,
    DiffusionPipeline,
    EasyAnimateInpaintPipeline,
    EasyAnimatePipeline,
    EasyAnimateTransformer3DModel,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors import safe_open
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen2Tokenizer,
    Qwen2VLForConditionalGeneration,
    T5EncoderModel,
    T5Tokenizer,
)

from miniatures.captions import SCENES
from miniatures.videos import VIDEOS
from tests.support.paths import ROOT

MINIATURES = ROOT / "miniatures"
SD3 = {
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
SDXL = {
    "unet": UNet2DConditionModel,
    "scheduler": EulerDiscreteScheduler,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
    "tokenizer": CLIPTokenizer,
    "tokenizer_2": CLIPTokenizer,
}
EASYANIMATE = {
    "transformer": EasyAnimateTransformer3DModel,
    "scheduler": FlowMatchEulerDiscreteScheduler,
    "vae": AutoencoderKLMagvit,
    "text_encoder": Qwen2VLForConditionalGeneration,
    "tokenizer": Qwen2Tokenizer,
}
COMPONENTS = {
    "easyanimate": (EasyAnimatePipeline, EASYANIMATE),
    "easyanimate_i2v": (EasyAnimateInpaintPipeline, EASYANIMATE),
    "sd3": (StableDiffusion3Pipeline, SD3),
    "sdxl": (StableDiffusionXLPipeline, SDXL),
    "sdxl_turbo": (
        StableDiffusionXLPipeline,
        SDXL | {"scheduler": EulerAncestralDiscreteScheduler},
    ),
}
MAX_MEGABYTES = 20


@pytest.fixture(scope="module", params=COMPONENTS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def pipeline(name):
    return DiffusionPipeline.from_pretrained(MINIATURES / name, local_files_only=True)


@pytest.fixture(scope="module")
def tokenizers(pipeline):
    names = [part for part in pipeline.components if part.startswith("tokenizer")]
    encoders = [getattr(pipeline, part.replace("tokenizer", "text_encoder")) for part in names]
    return list(zip([getattr(pipeline, part) for part in names], encoders, strict=True))


def test_all_components_are_of_the_real_classes(name, pipeline):
    kinds = {part: type(value) for part, value in pipeline.components.items() if value is not None}
    assert (type(pipeline), kinds) == COMPONENTS[name]


def test_the_weights_are_half_precision_finite_and_small(name):
    files = list((MINIATURES / name).rglob("*.safetensors"))
    assert len(files) == sum(
        issubclass(kind, torch.nn.Module) for kind in COMPONENTS[name][1].values()
    )
    for path in files:
        with safe_open(path, "pt") as weights:
            for key in weights.keys():  # noqa: SIM118
                tensor = weights.get_tensor(key)
                assert tensor.dtype == torch.float16, f"{path}: {key}"
                assert tensor.isfinite().all(), f"{path}: {key}"
    size = sum(path.stat().st_size for path in (MINIATURES / name).rglob("*") if path.is_file())
    print(f"{size / 1e6:.1f} MB, ceiling {MAX_MEGABYTES} MB")
    assert size / 1e6 <= MAX_MEGABYTES


def test_no_config_has_a_path(name):
    for path in (MINIATURES / name).rglob("*.json"):
        assert "_name_or_path" not in path.read_text(), path


def test_every_word_of_a_caption_is_one_known_token(name, tokenizers):
    for tokenizer, encoder in tokenizers:
        special = len(tokenizer("").input_ids)
        known = encoder.get_input_embeddings().num_embeddings
        for scene in VIDEOS if COMPONENTS[name][1] is EASYANIMATE else SCENES:
            ids = tokenizer(scene.caption).input_ids
            assert len(ids) == len(scene.caption.split()) + special <= tokenizer.model_max_length
            assert 0 <= min(ids) <= max(ids) < known
            assert tokenizer.unk_token_id not in ids[:-1], scene.caption
            assert tokenizer.decode(ids, skip_special_tokens=True).strip() == scene.caption


def test_the_empty_caption_is_tokenized(tokenizers):
    for tokenizer, encoder in tokenizers:
        special = {T5EncoderModel: 1, Qwen2VLForConditionalGeneration: 0}.get(type(encoder), 2)
        assert len(tokenizer("").input_ids) == special
