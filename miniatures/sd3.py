"""Trains the SD3 miniature: text encoders and transformer together, on cached latents.

Flow matching as in Stable Diffusion 3 (arXiv 2403.03206): the transformer learns the velocity
``noise - latents`` along ``x = (1 - sigma) * latents + sigma * noise``, with sigma logit-normal.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import nn
from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel

from miniatures import checkpoints, vae
from miniatures.captions import TRAINING
from miniatures.training import Recipe, fit
from miniatures.vocabularies import MAX_TOKENS, clip_tokenizer, t5_tokenizer

AUTOENCODER = {
    "block_out_channels": (16, 32, 48, 64),
    "latent_channels": 16,
    "mid_block_add_attention": False,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "force_upcast": False,
}
VAE_STEPS = 5000
PICTURES_PER_SCENE = 16
BATCH = 64
# Each phase starts from the previous one's average.
PHASES = (Recipe("sd3", 5000, 1e-3), Recipe("sd3-second", 3500, 6e-4))
CAPTION_DROPOUT = 0.1
# Some pictures are learned from the CLIP encoders alone, so that an export without T5 works.
T5_DROPOUT = 0.1
# StableDiffusion3Pipeline pads T5's tokens to 256 by default, so some batches have 256.
LONG_BATCHES, LONG_BATCH, LONG_TOKENS = 0.05, 16, 256
JOINT_DIM = 160
FLOW_SHIFT = 3.0


def _clip(hidden: int, activation: str, vocabulary: int) -> CLIPTextModelWithProjection:
    """An untrained CLIP text encoder of two layers."""
    return CLIPTextModelWithProjection(checkpoints.clip_config(hidden, 2, activation, vocabulary))


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
    """The jointly trained models: three text encoders and the transformer."""

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
        return [checkpoints.tokenize(tokenizer, captions) for tokenizer in self.tokenizers]

    def forward(
        self,
        latents: torch.Tensor,
        sigmas: torch.Tensor,
        ids: list[torch.Tensor],
        keep_t5: torch.Tensor,
    ) -> torch.Tensor:
        """The predicted velocity of noisy ``latents``; conditioning is combined as in SD3.

        ``keep_t5`` (batch, 1, 1) is 1, or 0 to replace T5's embeddings by zeros.
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
    """Cached latents of drawn scenes (N, 16, 8, 8), and their rows of token ids."""

    latents: torch.Tensor
    captions: torch.Tensor
    ids: list[torch.Tensor]

    def batch(self, size: int, t5_tokens: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Random latents with their token ids; a tenth get the empty caption, the last row."""
        chosen = torch.randint(len(self.latents), (size,))
        rows = self.captions[chosen]
        rows[torch.rand(size) < CAPTION_DROPOUT] = len(self.ids[0]) - 1
        ids = [column[rows] for column in self.ids]
        ids[2] = nn.functional.pad(ids[2], (0, t5_tokens - MAX_TOKENS))
        return self.latents[chosen], ids


@torch.no_grad()
def _dataset(model: Sd3, vae_folder: Path, seed: int) -> Dataset:
    """Draw, encode and tokenize the training scenes."""
    autoencoder = AutoencoderKL.from_pretrained(vae_folder).eval()
    latents = vae.encode(autoencoder, vae.pictures(PICTURES_PER_SCENE, seed))
    captions = torch.arange(len(TRAINING)).repeat_interleave(PICTURES_PER_SCENE)
    ids = model.tokenize([scene.caption for scene in TRAINING] + [""])
    return Dataset(latents, captions, ids)


def _loss(model: Sd3, dataset: Dataset) -> tuple[torch.Tensor, float]:
    """Mean squared error of the velocity on one batch."""
    long = torch.rand(()) < LONG_BATCHES
    latents, ids = dataset.batch(*((LONG_BATCH, LONG_TOKENS) if long else (BATCH, MAX_TOKENS)))
    noise = torch.randn_like(latents)
    sigmas = torch.sigmoid(torch.randn(len(latents)))
    keep_t5 = (torch.rand(len(latents), 1, 1) >= T5_DROPOUT).float()
    weight = sigmas.view(-1, 1, 1, 1)
    velocity = model((1 - weight) * latents + weight * noise, sigmas, ids, keep_t5)
    loss = nn.functional.mse_loss(velocity, noise - latents)
    return loss, loss.item()


def save(model: Sd3, output: Path) -> None:
    """Write the checkpoint in the layout of StableDiffusion3Pipeline, fp16."""
    parts = {
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=FLOW_SHIFT),
        "text_encoder": model.clip_l,
        "text_encoder_2": model.clip_g,
        "text_encoder_3": model.t5,
        "tokenizer": model.tokenizers[0],
        "tokenizer_2": model.tokenizers[1],
        "tokenizer_3": model.tokenizers[2],
        "transformer": model.transformer,
        "vae": AutoencoderKL,
    }
    checkpoints.save(output, "StableDiffusion3Pipeline", parts)


def train(output: Path, state: Path, seed: int = 0) -> None:
    """Train the autoencoder, then the other models on its latents; save the moving average."""
    torch.manual_seed(seed)
    images = vae.pictures(vae.PICTURES_PER_SCENE, seed)
    vae.train(output / "vae", vae.autoencoder(**AUTOENCODER), VAE_STEPS, images, state)
    model = Sd3()
    dataset = _dataset(model, output / "vae", seed)
    for phase in PHASES:
        model = fit(phase, model, lambda _, model=model: _loss(model, dataset), state).train()
    save(model, output)
