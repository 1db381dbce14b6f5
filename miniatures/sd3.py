"""Trains the SD3 miniature: text encoders and transformer together, on cached latents.

Flow matching as in Stable Diffusion 3 (arXiv 2403.03206): the transformer learns the velocity
``noise - latents`` along ``x = (1 - sigma) * latents + sigma * noise``, with sigma logit-normal.
"""

import copy
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from miniatures.captions import TRAINING
from miniatures.vae import pictures
from miniatures.vocabularies import MAX_TOKENS, clip_tokenizer, t5_tokenizer

log = logging.getLogger(__name__)

PICTURES_PER_SCENE = 16
BATCH = 64
# Steps and greatest learning rate of each phase; a phase starts from the average of the one before.
PHASES = ((5000, 1e-3), (3500, 6e-4))
CAPTION_DROPOUT = 0.1
# Some pictures are learned from the CLIP encoders alone: a pipeline exported without T5 works.
T5_DROPOUT = 0.1
# StableDiffusion3Pipeline pads T5's tokens to 256 unless told otherwise; some batches see that.
LONG_BATCHES, LONG_BATCH, LONG_TOKENS = 0.05, 16, 256
EMA_DECAY = 0.999
JOINT_DIM = 160
FLOW_SHIFT = 3.0


def _clip(hidden: int, activation: str, vocabulary: int) -> CLIPTextModelWithProjection:
    """An untrained CLIP text encoder of two layers; the last two tokens are its BOS and EOS."""
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        projection_dim=hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS,
        hidden_act=activation,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
        initializer_factor=1.0,
    )
    return CLIPTextModelWithProjection(config)


def _t5(vocabulary: int) -> T5EncoderModel:
    """An untrained T5 v1.1 encoder of two layers."""
    config = T5Config(
        vocab_size=vocabulary,
        d_model=JOINT_DIM,
        d_kv=32,
        d_ff=256,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
    )
    return T5EncoderModel(config)


class Sd3(nn.Module):
    """What is trained together: three text encoders and the transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizers = (clip_tokenizer("<|endoftext|>"), clip_tokenizer("!"), t5_tokenizer())
        self.clip_l = _clip(64, "quick_gelu", len(self.tokenizers[0]))
        self.clip_g = _clip(80, "gelu", len(self.tokenizers[1]))
        self.t5 = _t5(len(self.tokenizers[2]))
        self.transformer = SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=6,
            attention_head_dim=32,
            num_attention_heads=6,
            caption_projection_dim=192,
            joint_attention_dim=JOINT_DIM,
            pooled_projection_dim=64 + 80,
            pos_embed_max_size=24,
        )

    def tokenize(self, captions: list[str]) -> list[torch.Tensor]:
        """Token ids of each tokenizer, int64, shape (len(captions), 20)."""
        return [
            tokenizer(
                captions, padding="max_length", max_length=MAX_TOKENS, truncation=True,
                return_tensors="pt",
            ).input_ids
            for tokenizer in self.tokenizers
        ]  # fmt: skip

    def forward(
        self,
        latents: torch.Tensor,
        sigmas: torch.Tensor,
        ids: list[torch.Tensor],
        keep_t5: torch.Tensor,
    ) -> torch.Tensor:
        """The predicted velocity of noisy ``latents``; conditioning is put together as in SD3.

        ``keep_t5`` (batch, 1, 1) is 1, or 0 where T5's embeddings are to be zeros.
        """
        clip_l = self.clip_l(ids[0], output_hidden_states=True)
        clip_g = self.clip_g(ids[1], output_hidden_states=True)
        clip = torch.cat([clip_l.hidden_states[-2], clip_g.hidden_states[-2]], dim=-1)
        clip = nn.functional.pad(clip, (0, JOINT_DIM - clip.shape[-1]))
        embeddings = torch.cat([clip, keep_t5 * self.t5(ids[2]).last_hidden_state], dim=1)
        pooled = torch.cat([clip_l.text_embeds, clip_g.text_embeds], dim=-1)
        return self.transformer(
            hidden_states=latents,
            timestep=sigmas * 1000,
            encoder_hidden_states=embeddings,
            pooled_projections=pooled,
        ).sample


@dataclass(frozen=True)
class Dataset:
    """Cached latents of drawn scenes (N, 16, 8, 8), and each one's row of token ids."""

    latents: torch.Tensor
    captions: torch.Tensor
    ids: list[torch.Tensor]

    def batch(self, size: int, t5_tokens: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Random latents with their token ids; a tenth have the empty caption, which is last."""
        chosen = torch.randint(len(self.latents), (size,))
        rows = self.captions[chosen]
        rows[torch.rand(size) < CAPTION_DROPOUT] = len(self.ids[0]) - 1
        ids = [column[rows] for column in self.ids]
        ids[2] = nn.functional.pad(ids[2], (0, t5_tokens - MAX_TOKENS))
        return self.latents[chosen], ids


@torch.no_grad()
def _dataset(model: Sd3, vae_folder: Path, seed: int) -> Dataset:
    """Draw, encode and tokenize the training scenes."""
    vae = AutoencoderKL.from_pretrained(vae_folder).eval()
    images = pictures(PICTURES_PER_SCENE, seed)
    latents = torch.cat([vae.encode(batch).latent_dist.mean for batch in images.split(256)])
    latents = (latents - vae.config.shift_factor) * vae.config.scaling_factor
    captions = torch.arange(len(TRAINING)).repeat_interleave(PICTURES_PER_SCENE)
    ids = model.tokenize([scene.caption for scene in TRAINING] + [""])
    return Dataset(latents, captions, ids)


def _loss(model: Sd3, dataset: Dataset) -> torch.Tensor:
    """Mean squared error of the velocity on one batch."""
    long = torch.rand(()) < LONG_BATCHES
    latents, ids = dataset.batch(*((LONG_BATCH, LONG_TOKENS) if long else (BATCH, MAX_TOKENS)))
    noise = torch.randn_like(latents)
    sigmas = torch.sigmoid(torch.randn(len(latents)))
    keep_t5 = (torch.rand(len(latents), 1, 1) >= T5_DROPOUT).float()
    weight = sigmas.view(-1, 1, 1, 1)
    velocity = model((1 - weight) * latents + weight * noise, sigmas, ids, keep_t5)
    return nn.functional.mse_loss(velocity, noise - latents)


def _steps(model: Sd3, dataset: Dataset, steps: int, rate: float) -> Iterator[int]:
    """Train one step at a time, the learning rate in one cycle up to ``rate``."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.1
    )
    average = 0.0
    for step in range(steps):
        loss = _loss(model, dataset)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average = loss.item() if step == 0 else 0.99 * average + 0.01 * loss.item()
        if step % 100 == 0 or step == steps - 1:
            log.info("sd3 step %d of %d: squared error %.4f", step, steps, average)
        yield step


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module) -> None:
    """Move the exponential moving average one step towards the model."""
    for mean, current in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(current, 1 - EMA_DECAY)


def save(model: Sd3, output: Path) -> None:
    """Write all but the autoencoder in the layout of StableDiffusion3Pipeline, fp16."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=FLOW_SHIFT)
    scheduler.save_pretrained(output / "scheduler")
    model.transformer.half().save_pretrained(output / "transformer")
    encoders = (model.clip_l, model.clip_g, model.t5)
    index: dict[str, object] = {
        "_class_name": "StableDiffusion3Pipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "transformer": ["diffusers", "SD3Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    for suffix, encoder, tokenizer in zip(
        ("", "_2", "_3"), encoders, model.tokenizers, strict=True
    ):
        _save_encoder(encoder, output / f"text_encoder{suffix}")
        tokenizer.save_pretrained(output / f"tokenizer{suffix}")
        index[f"text_encoder{suffix}"] = ["transformers", type(encoder).__name__]
        index[f"tokenizer{suffix}"] = ["transformers", type(tokenizer).__name__]
    text = json.dumps(dict(sorted(index.items())), indent=2)
    (output / "model_index.json").write_text(text + "\n")


def _save_encoder(encoder: nn.Module, folder: Path) -> None:
    """Save as fp16, to be loaded as float32 unless asked otherwise, as diffusers' models are."""
    encoder.half().save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "dtype": "float32"}, indent=2) + "\n")


def train(output: Path, seed: int = 0) -> None:
    """Train from nothing on the autoencoder in ``output / "vae"``; save the moving average."""
    torch.manual_seed(seed)
    model = Sd3()
    dataset = _dataset(model, output / "vae", seed)
    for steps, rate in PHASES:
        model = _phase(model, dataset, steps, rate)
    save(model, output)


def _phase(model: Sd3, dataset: Dataset, steps: int, rate: float) -> Sd3:
    """Train ``model`` and return the moving average of its weights."""
    average = copy.deepcopy(model).eval()
    for _ in _steps(model, dataset, steps, rate):
        _follow(average, model)
    return average.train()
