"""Distils the SDXL miniature into one that draws in one to four steps.

The teacher solves its ODE (arXiv 2206.00364) from noise to a picture. The student learns to predict
that picture from the noise alone, and at the later timesteps of a four-step run from the picture
with fresh noise, the ancestral sampler's input. The noise determines the picture, so a plain
squared error gives sharp pictures (arXiv 2209.03003, section 2.2).
"""

import shutil
from pathlib import Path

import torch
from diffusers import (
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from miniatures import checkpoints, sdxl
from miniatures.captions import TRAINING
from miniatures.training import Recipe, fit, keep

# Successive cycles of the learning rate.
RECIPES = tuple(Recipe(f"sdxl_turbo-{n}", steps=2000, rate=3e-4, mixed=True) for n in range(3))
CHUNKS, CHUNK = 14, len(TRAINING)
TEACHER_STEPS, GUIDANCE_SCALE = 16, 1.5
TIMESTEPS = (999, 749, 499, 249)
# Share of samples at the first timestep; later ones are easier, since the picture shows through.
FIRST_SHARE = 0.5


@torch.no_grad()
def _conditions(teacher: StableDiffusionXLPipeline) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings and pooled embeddings of the training captions, in order."""
    captions = [scene.caption for scene in TRAINING]
    hidden, _, pooled, _ = teacher.encode_prompt(captions, do_classifier_free_guidance=False)
    return hidden, pooled


def _pairs(teacher: StableDiffusionXLPipeline, state: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise and the teacher's latents, both (CHUNKS * 648, 4, 16, 16); a chunk has every caption.

    Reads the chunks that an earlier run left in ``state``.
    """
    state.mkdir(parents=True, exist_ok=True)
    chunks = []
    for number in range(CHUNKS):
        path = state / f"sdxl_turbo-pairs-{number:02}.pt"
        if not path.exists():
            keep(_chunk(teacher, number), path)
        chunks.append(torch.load(path))
    noises, latents = zip(*chunks, strict=True)
    return torch.cat(noises), torch.cat(latents)


def _chunk(teacher: StableDiffusionXLPipeline, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise from ``seed`` and the teacher's latents, one picture per training caption."""
    generator = torch.Generator().manual_seed(seed)
    side = sdxl.LATENT_SIDE
    noise = torch.randn(CHUNK, sdxl.LATENT_CHANNELS, side, side, generator=generator)
    parts = (part.split(sdxl.BATCH) for part in (noise, *_conditions(teacher)))
    return noise, torch.cat([_solve(teacher, *batch) for batch in zip(*parts, strict=True)])


def _solve(
    teacher: StableDiffusionXLPipeline,
    noise: torch.Tensor,
    hidden: torch.Tensor,
    pooled: torch.Tensor,
) -> torch.Tensor:
    """The end of the teacher's ODE."""
    with torch.autocast("cpu", torch.bfloat16):
        return teacher(
            prompt_embeds=hidden,
            pooled_prompt_embeds=pooled,
            negative_prompt_embeds=torch.zeros_like(hidden),
            negative_pooled_prompt_embeds=torch.zeros_like(pooled),
            latents=noise,
            num_inference_steps=TEACHER_STEPS,
            guidance_scale=GUIDANCE_SCALE,
            output_type="latent",
        ).images


class _Lesson:
    """Batches of pairs and the student's loss on them."""

    def __init__(self, teacher: StableDiffusionXLPipeline, state: Path) -> None:
        self.noise, self.latents = _pairs(teacher, state)
        self.hidden, self.pooled = _conditions(teacher)
        self.alphas = teacher.scheduler.alphas_cumprod

    def loss(self, student: UNet2DConditionModel) -> tuple[torch.Tensor, float]:
        """Squared error of the student's predicted latents, at timesteps of a four-step run."""
        chosen = torch.randint(len(self.noise), (sdxl.BATCH,))
        rows, latents = chosen % CHUNK, self.latents[chosen]
        first = torch.rand(sdxl.BATCH) < FIRST_SHARE
        later = torch.tensor(TIMESTEPS)[torch.randint(1, len(TIMESTEPS), (sdxl.BATCH,))]
        timesteps = torch.where(first, TIMESTEPS[0], later)
        kept = self.alphas[timesteps].view(-1, 1, 1, 1)
        fresh = kept.sqrt() * latents + (1 - kept).sqrt() * torch.randn_like(latents)
        alone = (1 - kept).sqrt() * self.noise[chosen]
        noisy = torch.where(first.view(-1, 1, 1, 1), alone, fresh)
        conditions = {
            "text_embeds": self.pooled[rows],
            "time_ids": sdxl.time_ids(sdxl.BATCH),
        }
        predicted = student(
            noisy, timesteps, self.hidden[rows], added_cond_kwargs=conditions
        ).sample
        named = (noisy - (1 - kept).sqrt() * predicted) / kept.sqrt()
        loss = torch.nn.functional.mse_loss(named, latents)
        return loss, loss.item()


def train(output: Path, state: Path, seed: int = 0) -> None:
    """Distil the checkpoint ``sdxl`` next to ``output``; copy its encoders and autoencoder."""
    torch.manual_seed(seed)
    teacher = StableDiffusionXLPipeline.from_pretrained(
        output.with_name("sdxl"), local_files_only=True
    )
    teacher.set_progress_bar_config(disable=True)
    teacher.scheduler = EulerDiscreteScheduler(**sdxl.SCHEDULE, timestep_spacing="trailing")
    lesson, student = _Lesson(teacher, state), teacher.unet
    for recipe in RECIPES:
        # Uses the last weights: the run is too short for the moving average.
        fit(recipe, student.train(), lambda _: lesson.loss(student), state)
    save(student, output)


def save(student: UNet2DConditionModel, output: Path) -> None:
    """Write the checkpoint; all parts but the UNet and the scheduler are the teacher's."""
    shutil.copytree(output.with_name("sdxl"), output, dirs_exist_ok=True)
    scheduler = EulerAncestralDiscreteScheduler(**sdxl.SCHEDULE, timestep_spacing="trailing")
    parts = sdxl.PARTS | {"scheduler": scheduler, "unet": student}
    checkpoints.save(output, "StableDiffusionXLPipeline", parts, force_zeros_for_empty_prompt=True)
