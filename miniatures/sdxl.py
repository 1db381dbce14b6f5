"""Trains the SDXL miniature: text encoders and UNet together, on cached latents.

The UNet predicts the noise of ``x = sqrt(a) * latents + sqrt(1 - a) * noise`` (arXiv 2307.01952).
The loss is weighted similarly to min-SNR (arXiv 2303.09556), so that every noise level contributes.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from miniatures import checkpoints, vae
from miniatures.captions import TRAINING
from miniatures.scenes import SIDE
from miniatures.training import Recipe, fit
from miniatures.vocabularies import clip_tokenizer

VAE_STEPS, DECODER_STEPS = 3000, 1500
LATENT_CHANNELS, LATENT_SIDE = 4, 16
# The real autoencoder halves sides three times; at 8 x 8 x 4, small stars would lose their tips.
AUTOENCODER = {"block_out_channels": (16, 32, 64), "latent_channels": LATENT_CHANNELS}
RECIPE = Recipe("sdxl", steps=4000, rate=1e-3, mixed=True)
BATCH = 64
# Pictures per scene: unchanged, cropped, and enlarged from half size.
PLAIN, CROPPED, ENLARGED = 12, 2, 1
MAX_CROP = 8
# In SDXL, an absent negative prompt is zeros and an empty one is encoded; training covers both.
ZEROS_DROPOUT, EMPTY_DROPOUT = 0.07, 0.03
MAX_WEIGHT, MAX_SNR_WEIGHT = 10.0, 6.0
SCHEDULE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "epsilon",
}
PARTS = {
    "scheduler": EulerDiscreteScheduler,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
    "tokenizer": CLIPTokenizer,
    "tokenizer_2": CLIPTokenizer,
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
}


def unet(hidden: int, pooled: int) -> UNet2DConditionModel:
    """An untrained UNet in SDXL's layout: attention in two of three levels, deeper in the last."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 96, 128),
        layers_per_block=1,
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(2, 3, 4),
        cross_attention_dim=hidden,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=pooled + 6 * 32,
    )


class Sdxl(nn.Module):
    """The jointly trained models: two text encoders and the UNet."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizers = (clip_tokenizer("<|endoftext|>"), clip_tokenizer("!"))
        words = len(self.tokenizers[0])
        self.clip_l = CLIPTextModel(checkpoints.clip_config(64, 3, "quick_gelu", words))
        self.clip_g = CLIPTextModelWithProjection(checkpoints.clip_config(96, 3, "gelu", words))
        self.unet = unet(hidden=64 + 96, pooled=96)

    def tokenize(self, captions: list[str]) -> list[torch.Tensor]:
        """Token ids of each tokenizer, int64, shape (len(captions), 20)."""
        return [checkpoints.tokenize(tokenizer, captions) for tokenizer in self.tokenizers]

    def encode(self, ids: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings (batch, 20, 160) and pooled embeddings (batch, 96), joined as in SDXL."""
        clip_l = self.clip_l(ids[0], output_hidden_states=True)
        clip_g = self.clip_g(ids[1], output_hidden_states=True)
        hidden = torch.cat([clip_l.hidden_states[-2], clip_g.hidden_states[-2]], dim=-1)
        return hidden, clip_g.text_embeds


@dataclass(frozen=True)
class Batch:
    """Latents (batch, 4, 16, 16) with their token ids and time ids (batch, 6).

    ``keep`` (batch, 1) is 1, or 0 to replace the embeddings by zeros.
    """

    latents: torch.Tensor
    ids: list[torch.Tensor]
    time_ids: torch.Tensor
    keep: torch.Tensor


@dataclass(frozen=True)
class Dataset:
    """Cached latents of drawn scenes (N, 4, 16, 16), their time ids and rows of token ids."""

    latents: torch.Tensor
    time_ids: torch.Tensor
    captions: torch.Tensor
    ids: list[torch.Tensor]

    def batch(self, size: int) -> Batch:
        """Random pictures; some get the empty caption, the last row, or zeros."""
        chosen = torch.randint(len(self.latents), (size,))
        rows = self.captions[chosen]
        rows[torch.rand(size) < EMPTY_DROPOUT] = len(self.ids[0]) - 1
        keep = (torch.rand(size, 1) >= ZEROS_DROPOUT).float()
        ids = [column[rows] for column in self.ids]
        return Batch(self.latents[chosen], ids, self.time_ids[chosen], keep)


def time_ids(count: int, original: int = SIDE) -> torch.Tensor:
    """SDXL's micro-conditioning for ``count`` pictures: original size, crop, target size."""
    return torch.tensor([[original, original, 0, 0, SIDE, SIDE]] * count, dtype=torch.float32)


def _crop(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Crop up to 8 pixels at the top and the left, and pad at the other sides."""
    corners = torch.randint(MAX_CROP + 1, (len(images), 2))
    padded = nn.functional.pad(images, (0, MAX_CROP, 0, MAX_CROP), mode="replicate")
    pairs = zip(padded, corners.tolist(), strict=True)
    cropped = [image[:, top : top + SIDE, left : left + SIDE] for image, (top, left) in pairs]
    labels = time_ids(len(images))
    labels[:, 2:4] = corners
    return torch.stack(cropped), labels


def _enlarge(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Halve the sides and double them again."""
    halves = nn.functional.interpolate(images, scale_factor=0.5, mode="area")
    labels = time_ids(len(images), original=SIDE // 2)
    return nn.functional.interpolate(halves, scale_factor=2, mode="bilinear"), labels


@torch.no_grad()
def dataset(model: Sdxl, vae_folder: Path, seed: int, outlined: bool = False) -> Dataset:
    """Draw, encode and tokenize the training scenes."""
    plain = vae.pictures(PLAIN, seed, outlined)
    cropped, crops = _crop(vae.pictures(CROPPED, seed + 1, outlined))
    enlarged, originals = _enlarge(vae.pictures(ENLARGED, seed + 2, outlined))
    autoencoder = AutoencoderKL.from_pretrained(vae_folder).eval()
    latents = vae.encode(autoencoder, torch.cat([plain, cropped, enlarged]))
    scenes = torch.arange(len(TRAINING))
    return Dataset(
        latents,
        torch.cat([time_ids(len(plain)), crops, originals]),
        torch.cat([scenes.repeat_interleave(count) for count in (PLAIN, CROPPED, ENLARGED)]),
        model.tokenize([scene.caption for scene in TRAINING] + [""]),
    )


def predict(
    model: Sdxl, noisy: torch.Tensor, timesteps: torch.Tensor, batch: Batch
) -> torch.Tensor:
    """The noise that the model finds in ``noisy``."""
    hidden, pooled = model.encode(batch.ids)
    return model.unet(
        noisy,
        timesteps,
        hidden * batch.keep[..., None],
        added_cond_kwargs={"text_embeds": pooled * batch.keep, "time_ids": batch.time_ids},
    ).sample


def loss(model: Sdxl, alphas: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, float]:
    """Weighted squared error of the noise, with stratified noise levels.

    The denoised latents' error is the noise's error over the signal-to-noise ratio. Its weight is
    1 + ratio, at most 6; the resulting weight of the noise's error is at most 10.
    """
    count = len(batch.latents)
    timesteps = ((torch.arange(count) + torch.rand(count)) / count * len(alphas)).long()
    kept = alphas[timesteps].view(-1, 1, 1, 1)
    noise = torch.randn_like(batch.latents)
    predicted = predict(
        model, kept.sqrt() * batch.latents + (1 - kept).sqrt() * noise, timesteps, batch
    )
    ratio = kept / (1 - kept)
    weight = ((1 + ratio).clamp(max=MAX_SNR_WEIGHT) / ratio).clamp(max=MAX_WEIGHT)
    error = (weight * (predicted - noise) ** 2).mean()
    return error, error.item()


def save(model: Sdxl, output: Path) -> None:
    """Write the checkpoint in the layout of StableDiffusionXLPipeline, fp16."""
    parts = PARTS | {
        "scheduler": EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="leading", steps_offset=1),
        "text_encoder": model.clip_l,
        "text_encoder_2": model.clip_g,
        "tokenizer": model.tokenizers[0],
        "tokenizer_2": model.tokenizers[1],
        "unet": model.unet,
    }
    checkpoints.save(output, "StableDiffusionXLPipeline", parts, force_zeros_for_empty_prompt=True)


def train(output: Path, state: Path, seed: int = 0) -> None:
    """Train the autoencoder, then the other models on its latents; save the moving average."""
    torch.manual_seed(seed)
    images = torch.cat([vae.pictures(10, seed), vae.pictures(2, seed + 1, outlined=True)])
    vae.train(output / "vae", vae.autoencoder(**AUTOENCODER), VAE_STEPS, images, state)
    vae.sharpen(output / "vae", DECODER_STEPS, images, state)
    model = Sdxl()
    scenes = dataset(model, output / "vae", seed)
    alphas = EulerDiscreteScheduler(**SCHEDULE).alphas_cumprod
    save(fit(RECIPE, model, lambda _: loss(model, alphas, scenes.batch(BATCH)), state), output)
