"""Validates a request's settings and completes them with defaults."""

import secrets
from collections.abc import Mapping
from typing import Any

from stepwise.description.errors import InvalidRequest
from stepwise.description.family import Family, Limits
from stepwise.description.fields import Array, integer, integers, number, text
from stepwise.description.manifest import Manifest
from stepwise.description.settings import (
    DEFAULT_PRIORITY,
    RANDOM_SEED,
    Settings,
    Size,
    resolution,
)
from stepwise.request.sizes import picture_size, video_frames
from stepwise.sampling.samplers import SAMPLERS, table
from stepwise.sampling.schedules import SamplerError

# Random seeds are short enough to read out and retype.
_SEED_BITS = 32
_LARGEST_SEED = 2**63 - 1


def resolve(
    inputs: Mapping[str, Array],
    family: Family,
    manifest: Manifest,
    caps: Mapping[str, int],
    arrived: float,
) -> Settings:
    """Validate every setting of a request and fill in absent ones.

    ``inputs`` holds the received request tensors, in the spec's shapes. ``caps`` maps sizes such as
    "64x64" to their batch caps. Raises InvalidRequest, which names the field, the received value
    and the allowed values.
    """
    defaults, limits = family.defaults, family.limits
    num_images = integer(
        inputs, "num_images", defaults.num_images or 1, limits.num_images or (1, 1)
    )
    (height, width), notes = picture_size(inputs, manifest)
    frames = None if manifest.video is None else video_frames(inputs, family, manifest.video)
    longest = limits.deadline_ms[1]
    steps = integer(inputs, "steps", defaults.steps, limits.steps)
    return Settings(
        steps=steps,
        guidance_scale=number(
            inputs, "guidance_scale", defaults.guidance_scale, limits.guidance_scale
        ),
        guidance_rescale=number(
            inputs, "guidance_rescale", 0.0, limits.guidance_rescale or (0.0, 0.0)
        ),
        sampler=_sampler(inputs, defaults.sampler, manifest.schedule, steps),
        seed=_seed(inputs, num_images),
        num_images=num_images,
        height=height,
        width=width,
        latent_shape=_latent_shape(manifest, (height, width), frames),
        frames=frames or 1,
        video=manifest.video,
        time_ids=_time_ids(inputs, (height, width), limits),
        clip_skip=integer(inputs, "clip_skip", 0, (0, manifest.largest_clip_skip)),
        zero_negative=manifest.zero_negative and "negative_prompt" not in inputs,
        batch_cap=caps.get(resolution((height, width), frames), family.max_rows),
        schedule=manifest.schedule,
        arrived=arrived,
        deadline=arrived + integer(inputs, "deadline_ms", longest, limits.deadline_ms) / 1000,
        progress=bool(inputs["progress"][0]) if "progress" in inputs else True,
        preview_every=integer(inputs, "preview_every", 0, limits.preview_every),
        priority=integer(inputs, "priority", DEFAULT_PRIORITY, limits.priority),
        client=text(inputs, "client", "", limits.client_bytes),
        notes=notes,
    )


def _time_ids(inputs: Mapping[str, Array], size: Size, limits: Limits) -> tuple[int, ...]:
    """SDXL's micro-conditioning (arXiv 2307.01952, section 2.2), with diffusers' defaults."""
    return (
        *integers(inputs, "original_size", size, limits.pixels),
        *integers(inputs, "crop", (0, 0), limits.pixels),
        *integers(inputs, "target_size", size, limits.pixels),
    )


def _latent_shape(manifest: Manifest, size: Size, frames: int | None) -> tuple[int, ...]:
    sides = tuple(side // manifest.vae_scale for side in size)
    if manifest.video is None or frames is None:
        return (manifest.latent_channels, *sides)
    return (manifest.latent_channels, manifest.video.latent_frames(frames), *sides)


def _sampler(
    inputs: Mapping[str, Array], default: str, schedule: Mapping[str, Any], steps: int
) -> str:
    """The sampler's name, if it supports the checkpoint's schedule and this number of steps."""
    name = text(inputs, "sampler", default, 64)
    if name not in SAMPLERS:
        raise InvalidRequest(f"sampler: got {name!r}; allowed are {', '.join(SAMPLERS)}")
    try:
        table(name, schedule, steps)
    except SamplerError as error:
        raise InvalidRequest(f"sampler: got {name!r}; {error}") from error
    return name


def _seed(inputs: Mapping[str, Array], num_images: int) -> int:
    """The first picture's seed, drawn if not given; the others count up and must fit 64 bits."""
    seed = int(inputs["seed"][0]) if "seed" in inputs else RANDOM_SEED
    if seed == RANDOM_SEED:
        return secrets.randbits(_SEED_BITS)
    if seed > _LARGEST_SEED - num_images + 1:
        raise InvalidRequest(
            f"seed: got {seed} for {num_images} images; "
            f"allowed are seeds up to {_LARGEST_SEED - num_images + 1}"
        )
    return seed
