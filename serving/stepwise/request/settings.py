"""A request's settings: checked, completed with defaults, and carried between models as JSON."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipelines.errors import InvalidRequest
from pipelines.fields import Array, integer, integers, number, text
from pipelines.manifest import ClipLayout, Manifest
from pipelines.samplers import SAMPLERS, table
from pipelines.schedules import SamplerError
from pipelines.sizes import Size, clip_frames, picture_size
from pipelines.spec import Limits, Pipeline

# A drawn seed is short enough to be read out and typed again.
_SEED_BITS = 32
_LARGEST_SEED = 2**63 - 1
DEFAULT_PRIORITY = 1


@dataclass(frozen=True)
class Settings:
    """What travels behind ``prepare`` beside the embeddings.

    ``height`` and ``width`` are pixels, ``latent_shape`` is (channels, height, width) of the
    latents; ``batch_cap`` is how many rows a denoiser call of this size may have; ``schedule`` is
    the checkpoint's scheduler config. ``time_ids`` are what SDXL is told of a picture beside its
    prompt: original size, crop and target size, vertical before horizontal. ``clip_skip`` counts
    the layers of CLIP that the prompt goes without beside the last. With ``zero_negative`` there
    is no negative prompt, and its embeddings are zeros. Clips have ``frames``, a ``clip`` layout
    and latents (channels, frames, height, width). ``guidance_rescale`` is how much of the
    prediction's own deviation guidance keeps. ``arrived`` and ``deadline`` are seconds on
    the machine's monotonic clock. ``priority`` is 0 for the highest. ``asked`` is the request as it
    came, for the log.
    """

    steps: int
    guidance_scale: float
    sampler: str
    seed: int
    num_images: int
    height: int
    width: int
    latent_shape: tuple[int, ...]
    time_ids: tuple[int, ...]
    clip_skip: int
    zero_negative: bool
    batch_cap: int
    schedule: dict[str, Any]
    arrived: float
    deadline: float
    guidance_rescale: float = 0.0
    frames: int = 1
    clip: ClipLayout | None = None
    preview_every: int = 0
    priority: int = DEFAULT_PRIORITY
    client: str = ""
    asked: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def resolution(self) -> str:
        """The size as metrics, logs and batch caps have it."""
        return resolution((self.height, self.width), self.frames if self.clip else None)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str | bytes) -> "Settings":
        """The inverse of ``to_json``; InvalidRequest if ``text`` is not such a line."""
        try:
            fields = json.loads(text)
            fields["latent_shape"] = tuple(fields["latent_shape"])
            fields["time_ids"] = tuple(fields["time_ids"])
            fields["notes"] = tuple(fields["notes"])
            if fields["clip"] is not None:
                fields["clip"] = ClipLayout.from_fields(fields["clip"])
            return Settings(**fields)
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidRequest(
                f"settings: got {text[:80]!r}, which is not what prepare writes ({error}); "
                "send requests to the ensemble"
            ) from error


def resolution(size: Size, frames: int | None) -> str:
    """What metrics, logs and batch caps call a size: height x width, after the frames of a clip."""
    sides = "x".join(map(str, size))
    return sides if frames is None else f"{frames}x{sides}"


def resolve(
    inputs: Mapping[str, Array],
    pipeline: Pipeline,
    manifest: Manifest,
    caps: Mapping[str, int],
    arrived: float,
) -> Settings:
    """Check every setting of a request and fill in those that are absent.

    ``inputs`` holds the request tensors that were sent, in the spec's shapes; ``caps`` gives the
    batch cap of sizes such as "64x64" that have one of their own. Raises InvalidRequest naming
    the field, what was got and what is allowed.
    """
    defaults, limits = pipeline.defaults, pipeline.limits
    num_images = integer(
        inputs, "num_images", defaults.num_images or 1, limits.num_images or (1, 1)
    )
    (height, width), notes = picture_size(inputs, manifest)
    frames = None if manifest.clip is None else clip_frames(inputs, pipeline, manifest.clip)
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
        clip=manifest.clip,
        time_ids=_time_ids(inputs, (height, width), limits),
        clip_skip=integer(inputs, "clip_skip", 0, (0, manifest.largest_clip_skip)),
        zero_negative=manifest.zero_negative and "negative_prompt" not in inputs,
        batch_cap=caps.get(resolution((height, width), frames), pipeline.slots),
        schedule=manifest.schedule,
        arrived=arrived,
        deadline=arrived + integer(inputs, "deadline_ms", longest, limits.deadline_ms) / 1000,
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
    if manifest.clip is None or frames is None:
        return (manifest.latent_channels, *sides)
    return (manifest.latent_channels, manifest.clip.latent_frames(frames), *sides)


def _sampler(
    inputs: Mapping[str, Array], default: str, schedule: Mapping[str, Any], steps: int
) -> str:
    """A sampler that the checkpoint's schedule can give in so many steps."""
    name = text(inputs, "sampler", default, 64)
    if name not in SAMPLERS:
        raise InvalidRequest(f"sampler: got {name!r}; allowed are {', '.join(SAMPLERS)}")
    try:
        table(name, schedule, steps)
    except SamplerError as error:
        raise InvalidRequest(f"sampler: got {name!r}; {error}") from error
    return name


def _seed(inputs: Mapping[str, Array], num_images: int) -> int:
    """The first picture's seed; the others count up from it and must fit 64 bits."""
    if "seed" not in inputs:
        return secrets.randbits(_SEED_BITS)
    seed = int(inputs["seed"][0])
    if seed > _LARGEST_SEED - num_images + 1:
        raise InvalidRequest(
            f"seed: got {seed} for {num_images} images; "
            f"allowed are seeds up to {_LARGEST_SEED - num_images + 1}"
        )
    return seed
