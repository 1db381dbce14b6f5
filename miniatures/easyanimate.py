"""Trains the EasyAnimate miniature: text encoder and transformer together, on cached latents.

Flow matching as for SD3's miniature. The transformer sees all 256 text tokens of a prompt; most are
padding and would take four fifths of the time. Training samples a few padding positions and weights
each like many, by adding a logarithm to its attention scores.
"""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLMagvit,
    EasyAnimateTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.models.transformers.transformer_easyanimate import EasyAnimateAttnProcessor2_0
from torch import nn
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from miniatures import checkpoints, video_vae
from miniatures.chat import MAX_TOKENS, qwen_tokenizer, templated
from miniatures.training import Recipe, device, fit
from miniatures.videos import TRAINING
from stepwise.export.modules.magvit import streamed

BATCH = 256
# Each phase starts from the previous one's average. Sigmas are the logistic of a normal with this
# mean: high sigmas decide a video's colour, which is learned last.
PHASES = (
    (Recipe("easyanimate", 6400, 1e-3), 0.7),
    (Recipe("easyanimate-second", 5000, 6e-4), 1.2),
)
VIDEOS_PER_CAPTION = 48
CAPTION_DROPOUT = 0.1
# The number of first tokens, which hold the longest caption, and of sampled padding tokens.
TEXT_TOKENS, PADS = 17, 6
LATENT_CHANNELS = 16
HIDDEN = 128
# V5.1's settings of FlowMatchEulerDiscreteScheduler; its pipelines shift by e.
SCHEDULER = {"shift": 1.0, "use_dynamic_shifting": True}


def text_encoder(vocabulary: int) -> Qwen2VLForConditionalGeneration:
    """An untrained Qwen2-VL of three layers with an unused vision tower; pipelines read layer 2."""
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": HIDDEN,
            "intermediate_size": 2 * HIDDEN,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": MAX_TOKENS,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [4, 6, 6],
            },
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
        },
        vision_config={"depth": 1, "embed_dim": 16, "hidden_size": HIDDEN, "num_heads": 1},
        tie_word_embeddings=True,
    )
    return Qwen2VLForConditionalGeneration(config)


def transformer(in_channels: int) -> EasyAnimateTransformer3DModel:
    """An untrained transformer; half of its layers have separate weights for text."""
    return EasyAnimateTransformer3DModel(
        num_attention_heads=6,
        attention_head_dim=32,
        in_channels=in_channels,
        out_channels=LATENT_CHANNELS,
        patch_size=2,
        sample_width=6,
        sample_height=6,
        num_layers=6,
        mmdit_layers=3,
        time_embed_dim=96,
        text_embed_dim=HIDDEN,
        add_norm_text_encoder=True,
        norm_eps=1e-5,
    )


class Counting(EasyAnimateAttnProcessor2_0):
    """Attention with weighted text tokens: adds ``logarithms`` (1, 1, 1, tokens) to the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.logarithms: torch.Tensor | None = None

    # Attention inspects this signature and passes only arguments named in it.
    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Any:
        """As the base class, but with ``logarithms`` instead of the mask."""
        return super().__call__(
            attn, hidden_states, encoder_hidden_states, self.logarithms, image_rotary_emb
        )


@dataclass(frozen=True)
class Tokens:
    """Token ids and attention masks of captions, int64, shape (captions, 256)."""

    ids: torch.Tensor
    mask: torch.Tensor

    def rows(self, chosen: torch.Tensor) -> "Tokens":
        """The tokens of the chosen captions."""
        return Tokens(self.ids[chosen], self.mask[chosen])


class EasyAnimate(nn.Module):
    """The jointly trained models: the text encoder and the transformer."""

    def __init__(self, in_channels: int = LATENT_CHANNELS) -> None:
        super().__init__()
        self.tokenizer = qwen_tokenizer()
        self.text_encoder = text_encoder(len(self.tokenizer))
        self.text_encoder.model.visual.requires_grad_(False)
        self.transformer = transformer(in_channels)
        self.counting = Counting()
        for block in self.transformer.transformer_blocks:
            block.attn1.set_processor(self.counting)

    def tokenize(self, captions: list[str]) -> Tokens:
        """Tokenize captions like EasyAnimatePipeline."""
        encoded = self.tokenizer(
            [templated(self.tokenizer, caption) for caption in captions],
            padding="max_length",
            max_length=MAX_TOKENS,
            truncation=True,
            padding_side="right",
            return_tensors="pt",
        )
        return Tokens(encoded.input_ids, encoded.attention_mask)

    def encode(self, tokens: Tokens) -> torch.Tensor:
        """Embeddings of the first tokens and some sampled padding, (batch, 23, 128)."""
        drawn = TEXT_TOKENS + torch.randperm(MAX_TOKENS - TEXT_TOKENS)[:PADS].sort().values
        places = torch.cat([torch.arange(TEXT_TOKENS), drawn])
        hidden: torch.Tensor = self.text_encoder.model.language_model(
            input_ids=tokens.ids[:, places],
            attention_mask=tokens.mask[:, places],
            position_ids=places.expand(3, len(tokens.ids), -1),
            output_hidden_states=True,
            use_cache=False,
        ).hidden_states[-2]
        return hidden

    def forward(
        self,
        latents: torch.Tensor,
        sigmas: torch.Tensor,
        tokens: Tokens,
        inpaint_latents: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The predicted velocity of noisy ``latents`` (batch, 16, 5, 6, 6)."""
        embeddings = self.encode(tokens)
        patches = latents[0, 0].numel() // 4
        logarithms = torch.zeros(1, 1, 1, embeddings.shape[1] + patches)
        logarithms[..., TEXT_TOKENS : TEXT_TOKENS + PADS] = math.log(
            (MAX_TOKENS - TEXT_TOKENS) / PADS
        )
        self.counting.logarithms = logarithms
        prediction: torch.Tensor = self.transformer(
            latents,
            sigmas * 1000,
            encoder_hidden_states=embeddings,
            inpaint_latents=inpaint_latents,
            return_dict=False,
        )[0]
        return prediction


@dataclass(frozen=True)
class Dataset:
    """Cached latents of drawn videos (N, 16, 5, 6, 6), their captions, and the captions' tokens."""

    latents: torch.Tensor
    captions: torch.Tensor
    tokens: Tokens

    def batch(self, size: int) -> tuple[torch.Tensor, Tokens, torch.Tensor]:
        """Random latents, their tokens and their indices; a tenth have the empty caption."""
        chosen = torch.randint(len(self.latents), (size,))
        rows = self.captions[chosen]
        rows[torch.rand(size) < CAPTION_DROPOUT] = len(self.tokens.ids) - 1
        return self.latents[chosen], self.tokens.rows(rows), chosen


def make_dataset(model: EasyAnimate, drawn: torch.Tensor, vae: AutoencoderKLMagvit) -> Dataset:
    """Encode and tokenize drawn training videos, the same number for each caption."""
    captions = torch.arange(len(TRAINING)).repeat_interleave(len(drawn) // len(TRAINING))
    tokens = model.tokenize([video.caption for video in TRAINING] + [""])
    return Dataset(video_vae.encode(vae, drawn), captions, tokens)


def autoencoder(folder: Path) -> AutoencoderKLMagvit:
    """The trained autoencoder, for whole videos."""
    model = AutoencoderKLMagvit.from_pretrained(folder, torch_dtype=torch.float32).eval()
    streamed(model)
    return model.to(device())


def noisy(
    latents: torch.Tensor, sigma_mean: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noisy latents, their sigmas (batch,) and the target velocity."""
    noise = torch.randn_like(latents)
    sigmas = torch.sigmoid(sigma_mean + torch.randn(len(latents)))
    weight = sigmas.view(-1, 1, 1, 1, 1)
    return (1 - weight) * latents + weight * noise, sigmas, noise - latents


def _loss(
    model: EasyAnimate, dataset: Dataset, sigma_mean: float, _: float
) -> tuple[torch.Tensor, float]:
    """Mean squared error of the velocity on one batch."""
    latents, tokens, _ = dataset.batch(BATCH)
    given, sigmas, velocity = noisy(latents, sigma_mean)
    error = nn.functional.mse_loss(model(given, sigmas, tokens), velocity)
    return error, error.item()


def save(model: EasyAnimate, output: Path, pipeline: str) -> None:
    """Write the checkpoint in the layout of the diffusers class ``pipeline``, fp16."""
    parts = {
        "scheduler": FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        "text_encoder": model.text_encoder,
        "tokenizer": model.tokenizer,
        "transformer": model.transformer,
        "vae": AutoencoderKLMagvit,
    }
    checkpoints.save(output, pipeline, parts)


def train(output: Path, state: Path, seed: int = 0) -> None:
    """Train the autoencoder, then the other models on its latents; save the moving average."""
    torch.manual_seed(seed)
    with device():
        video_vae.train(output / "vae", output.parent / "sd3" / "vae", state, seed)
        video_vae.sharpen(output / "vae", state, seed)
        model = EasyAnimate()
        drawn = video_vae.videos(VIDEOS_PER_CAPTION, seed + 1)
        dataset = make_dataset(model, drawn, autoencoder(output / "vae"))
        for recipe, mean in PHASES:
            model = fit(recipe, model, partial(_loss, model, dataset, mean), state).train()
    save(model, output, "EasyAnimatePipeline")
