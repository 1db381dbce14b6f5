"""diffusers on the same checkpoint: the oracle for pictures, and what speed is compared with."""

import inspect
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import StableDiffusion3Pipeline

Picture = npt.NDArray[np.uint8]


class Diffusers:
    """StableDiffusion3Pipeline in eager float32 torch."""

    def __init__(self, checkpoint: Path, t5_tokens: int) -> None:
        # diffusers wants to be told of the one encoder that a checkpoint may lack.
        dropped = {} if (checkpoint / "text_encoder_3").is_dir() else {"text_encoder_3": None}
        self._pipeline = StableDiffusion3Pipeline.from_pretrained(
            checkpoint, torch_dtype=torch.float32, local_files_only=True, **dropped
        )
        self._pipeline.set_progress_bar_config(disable=True)
        self._t5_tokens = t5_tokens

    def pictures(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        steps: int,
        scheduler: Any = None,
        **settings: Any,
    ) -> list[Picture]:
        """One batch of pictures, uint8 (height, width, 3), each from a generator of its own.

        ``scheduler`` is a diffusers scheduler to use instead of the checkpoint's. ``settings`` are
        arguments of the pipeline's call: guidance_scale, negative_prompt, …
        """
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        answer = self._with(scheduler, generators)(
            list(prompts),
            num_inference_steps=steps,
            generator=generators,
            max_sequence_length=self._t5_tokens,
            output_type="pil",
            **settings,
        )
        return [np.asarray(image) for image in answer.images]

    def _with(self, scheduler: Any, generators: list[torch.Generator]) -> Any:
        """The pipeline with another scheduler, whose fresh noise is from ``generators`` too."""
        if scheduler is None:
            return self._pipeline
        if "generator" in inspect.signature(scheduler.step).parameters:
            # StableDiffusion3Pipeline leaves the fresh noise to torch's global generator.
            scheduler.step = partial(scheduler.step, generator=generators)
        pipeline = StableDiffusion3Pipeline(**self._pipeline.components | {"scheduler": scheduler})
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def psnr(picture: Picture, reference: Picture) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures."""
    error = np.mean((picture.astype(np.float64) - reference) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def decibels(value: float) -> float | str:
    """A PSNR as results have it: rounded, or a word where JSON has no number."""
    return round(value, 1) if np.isfinite(value) else "identical"
