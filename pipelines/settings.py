"""A request's settings: checked, completed with defaults, and carried between models as JSON."""

import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy.typing as npt

from pipelines.errors import InvalidRequest
from pipelines.manifest import Manifest, Sides
from pipelines.samplers import SAMPLERS
from pipelines.spec import Pipeline

Array = npt.NDArray[Any]
# A drawn seed is short enough to be read out and typed again.
_SEED_BITS = 32
_LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Settings:
    """What travels behind ``prepare`` beside the embeddings.

    ``latent_shape`` is (channels, height, width); ``schedule`` is the checkpoint's scheduler
    config; ``arrived`` is seconds on the machine's monotonic clock.
    """

    steps: int
    guidance_scale: float
    sampler: str
    seed: int
    num_images: int
    latent_shape: tuple[int, int, int]
    schedule: dict[str, Any]
    arrived: float
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str | bytes) -> "Settings":
        """The inverse of ``to_json``; InvalidRequest if ``text`` is not such a line."""
        try:
            fields = json.loads(text)
            fields["latent_shape"] = tuple(fields["latent_shape"])
            fields["notes"] = tuple(fields["notes"])
            return Settings(**fields)
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidRequest(
                f"settings: got {text[:80]!r}, which is not what prepare writes ({error}); "
                "send requests to the ensemble"
            ) from error


def resolve(
    inputs: Mapping[str, Array],
    pipeline: Pipeline,
    manifest: Manifest,
    arrived: float,
) -> Settings:
    """Check every setting of a request and fill in those that are absent.

    ``inputs`` holds the request tensors that were sent, each of shape (1,). Raises
    InvalidRequest naming the field, what was got and what is allowed.
    """
    defaults, limits = pipeline.defaults, pipeline.limits
    num_images = _integer(inputs, "num_images", defaults.num_images, limits.num_images)
    height = _side(inputs, "height", manifest.sides)
    width = _side(inputs, "width", manifest.sides)
    scale = manifest.vae_scale
    return Settings(
        steps=_integer(inputs, "steps", defaults.steps, limits.steps),
        guidance_scale=_guidance(inputs, defaults.guidance_scale, limits.guidance_scale),
        sampler=_sampler(inputs, defaults.sampler),
        seed=_seed(inputs, num_images),
        num_images=num_images,
        latent_shape=(manifest.latent_channels, height // scale, width // scale),
        schedule=manifest.schedule,
        arrived=arrived,
    )


def text(inputs: Mapping[str, Array], name: str, default: str, longest: int) -> str:
    """A text field as UTF-8, at most ``longest`` bytes; ``default`` if it is absent."""
    if name not in inputs:
        return default
    data = inputs[name][0]
    if len(data) > longest:
        raise InvalidRequest(f"{name}: got {len(data)} bytes; at most {longest} are allowed")
    try:
        return str(bytes(data), "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{name}: got bytes that are not UTF-8 (0x{data[error.start]:02x} at position "
            f"{error.start}); send UTF-8 text"
        ) from error


def _integer(inputs: Mapping[str, Array], name: str, default: int, allowed: tuple[int, int]) -> int:
    if name not in inputs:
        return default
    value, (low, high) = int(inputs[name][0]), allowed
    if not low <= value <= high:
        raise InvalidRequest(f"{name}: got {value}; allowed are {low} to {high}")
    return value


def _guidance(inputs: Mapping[str, Array], default: float, allowed: tuple[float, float]) -> float:
    if "guidance_scale" not in inputs:
        return default
    value, (low, high) = float(inputs["guidance_scale"][0]), allowed
    if not (math.isfinite(value) and low <= value <= high):
        raise InvalidRequest(f"guidance_scale: got {value:g}; allowed are {low:g} to {high:g}")
    return value


def _sampler(inputs: Mapping[str, Array], default: str) -> str:
    name = text(inputs, "sampler", default, 64)
    if name not in SAMPLERS:
        raise InvalidRequest(f"sampler: got {name!r}; allowed are {', '.join(SAMPLERS)}")
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


def _side(inputs: Mapping[str, Array], name: str, sides: Sides) -> int:
    """A picture's height or width in pixels."""
    if name not in inputs:
        return sides.native
    value = int(inputs[name][0])
    if value % sides.multiple or not sides.minimum <= value <= sides.maximum:
        nearest = round(value / sides.multiple) * sides.multiple
        nearest = min(max(nearest, sides.minimum), sides.maximum)
        raise InvalidRequest(
            f"{name}: got {value}; allowed are multiples of {sides.multiple} from "
            f"{sides.minimum} to {sides.maximum}; the nearest is {nearest}"
        )
    return value
