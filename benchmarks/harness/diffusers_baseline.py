"""diffusers on the same checkpoint: the oracle for pictures and the baseline for speed."""

import copy
import inspect
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.easyanimate.pipeline_easyanimate_inpaint import get_image_to_video_latent
from PIL import Image

Picture = npt.NDArray[np.uint8]


class Diffusers:
    """The diffusers pipeline of a checkpoint in eager float32 torch.

    ``t5_tokens`` is the length of T5's input, None for a family without T5.
    """

    def __init__(self, checkpoint: Path, t5_tokens: int | None = None) -> None:
        self._options: dict[str, int] = {}
        dropped: dict[str, None] = {}
        if t5_tokens is not None:
            self._options["max_sequence_length"] = t5_tokens
            # diffusers requires an explicit None for a T5 encoder that the checkpoint lacks.
            if not (checkpoint / "text_encoder_3").is_dir():
                dropped["text_encoder_3"] = None
        self._pipeline = DiffusionPipeline.from_pretrained(
            checkpoint, torch_dtype=torch.float32, local_files_only=True, **dropped
        )
        self._pipeline.set_progress_bar_config(disable=True)
        self._scheduler = self._pipeline.scheduler

    def pictures(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        steps: int,
        scheduler: Any = None,
        **settings: Any,
    ) -> list[Picture]:
        """One batch of pictures, uint8 (height, width, 3), each with its own random generator.

        ``scheduler`` is a diffusers scheduler to use instead of the checkpoint's. ``settings`` are
        arguments of the pipeline's call: guidance_scale, negative_prompt, …
        """
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        self._pipeline.scheduler = _with_noise(scheduler or self._scheduler, generators)
        answer = self._pipeline(
            list(prompts),
            num_inference_steps=steps,
            generator=generators,
            output_type="pil",
            **self._options,
            **settings,
        )
        return [np.asarray(image) for image in answer.images]

    def video(
        self,
        prompt: str,
        seed: int,
        steps: int,
        scheduler: Any = None,
        start: Picture | None = None,
        end: Picture | None = None,
        **settings: Any,
    ) -> Picture:
        """One video, uint8 (frames, height, width, 3), starting from the image ``start`` if given.

        ``settings`` are arguments of the pipeline's call; it needs num_frames, height and width.
        """
        generator = torch.Generator("cpu").manual_seed(seed)
        self._pipeline.scheduler = _with_noise(scheduler or self._scheduler, generator)
        images = {} if start is None else _images(start, end, **settings)
        answer = self._pipeline(
            prompt,
            num_inference_steps=steps,
            generator=generator,
            output_type="pil",
            **{"negative_prompt": "", **images, **settings},
        )
        return np.stack([np.asarray(frame) for frame in answer.frames[0]])


def _images(
    start: Picture, end: Picture | None, num_frames: int, height: int, width: int, **_: Any
) -> dict[str, Any]:
    """Images in the form that EasyAnimateInpaintPipeline takes."""
    images = [Image.fromarray(start)], None if end is None else [Image.fromarray(end)]
    video, mask = get_image_to_video_latent(*images, num_frames, (height, width))
    return {"video": video, "mask_video": mask}


def _with_noise(scheduler: Any, generators: list[torch.Generator] | torch.Generator) -> Any:
    """A copy of a scheduler that also draws fresh noise from ``generators``.

    Some pipelines would use torch's global generator.
    """
    own = copy.deepcopy(scheduler)
    if "generator" in inspect.signature(own.step).parameters:
        own.step = partial(own.step, generator=generators)
    return own


def psnr(picture: Picture, reference: Picture) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures."""
    error = np.mean((picture.astype(np.float64) - reference) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def decibels(value: float) -> float | str:
    """A PSNR for results: rounded, or a word, because JSON has no infinity."""
    return round(value, 1) if np.isfinite(value) else "identical"
