"""What only the checkpoint knows: written by ``export``, read by ``<name>_prepare``."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stepwise.description import formats
from stepwise.description.vae_caches import Cache

FILE = "manifest.json"
TOKENIZERS = "tokenizers"


@dataclass(frozen=True)
class Sides:
    """Legal picture sides in pixels: multiples of ``multiple`` between the two ends.

    ``native`` is what the checkpoint was trained at; of videos the height.
    """

    native: int
    minimum: int
    maximum: int
    multiple: int


@dataclass(frozen=True)
class VideoLayout:
    """What only the checkpoint knows of videos.

    A frame of latents holds ``frames`` frames, but for the first, which holds one, and has a pixel
    for every ``scale`` along a side. ``patch`` is the
    side of the denoiser's patches in latents, ``head_dim`` the width of its attention heads, which
    its rotary tables have. ``decoder_caches`` and ``encoder_caches`` are those of the autoencoder's
    graphs. A frame with a side of more than ``tile`` pixels goes through the autoencoder in tiles
    that begin ``tile_stride`` pixels apart. Latents are multiplied by ``scaling_factor``.
    ``reference_noise`` is the standard deviation of the
    noise that is added to the images which a video continues; 0 where there is none.
    """

    frames: int
    scale: int
    patch: int
    head_dim: int
    decoder_caches: tuple[Cache, ...]
    encoder_caches: tuple[Cache, ...]
    tile: int
    tile_stride: int
    scaling_factor: float
    reference_noise: float

    def latent_frames(self, frames: int) -> int:
        """How many frames of latents hold a video of ``frames``."""
        return (frames - 1) // self.frames + 1

    @staticmethod
    def from_fields(fields: dict[str, Any]) -> "VideoLayout":
        """The inverse of ``dataclasses.asdict``, from what JSON has made of it."""
        caches = {
            name: tuple(Cache(**cache) for cache in fields[name])
            for name in ("decoder_caches", "encoder_caches")
        }
        return VideoLayout(**{**fields, **caches})


@dataclass(frozen=True)
class Manifest:
    """An exported checkpoint.

    ``checkpoint`` is the folder or file that it was made from, ``loras`` what was fused into it, as
    ``file:scale``.

    ``vae_scale`` is pixels per latent along a side. ``schedule`` is the diffusers scheduler's
    config. ``tokens`` maps each text encoder to its sequence length, ``missing`` names the
    optional encoders that the checkpoint lacks, ``graphs`` maps each component to the SHA-256 of
    its graph and weights. ``size`` is the height and width that a request gets if it names none;
    the native side squared unless the checkpoint says otherwise. ``templates`` maps text encoders
    that read a chat to what stands before and after a prompt in it. ``video`` is that of pipelines
    which make videos. ``buckets`` are the only heights and widths in pixels that are served;
    without any, every size within ``sides`` is. ``largest_clip_skip`` is how many layers of CLIP a
    request may leave out, ``zero_negative`` whether an absent negative prompt becomes embeddings of
    zeros, ``source`` the SHA-256 of all that the export was made from, and ``quantized`` that of
    what its denoiser was quantized to, "" if it was not. ``config`` is the folder of configs that
    a checkpoint of one file was given. ``format`` and, by component, ``formats`` are those of
    ``stepwise.description.formats``.
    """

    family: str
    name: str
    checkpoint: str
    precision: str
    latent_channels: int
    vae_scale: int
    sides: Sides
    schedule: dict[str, Any]
    tokens: dict[str, int]
    missing: tuple[str, ...]
    graphs: dict[str, str]
    size: tuple[int, int]
    templates: dict[str, tuple[str, str]] = field(default_factory=dict)
    video: VideoLayout | None = None
    buckets: tuple[tuple[int, int], ...] = ()
    largest_clip_skip: int = 0
    zero_negative: bool = False
    source: str = ""
    loras: tuple[str, ...] = ()
    quantized: str = ""
    config: str = ""
    format: int = formats.REPOSITORY
    formats: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write ``manifest.json`` into the folder of ``<name>_prepare``."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2, sort_keys=True) + "\n")

    @staticmethod
    def read(folder: Path) -> "Manifest":
        """Read ``manifest.json`` from the folder of ``<name>_prepare``."""
        fields = json.loads((folder / FILE).read_text())
        fields["sides"] = Sides(**fields["sides"])
        fields["missing"] = tuple(fields["missing"])
        fields["loras"] = tuple(fields.get("loras", ()))
        fields["size"] = tuple(fields["size"])
        fields["templates"] = {k: (a, b) for k, (a, b) in fields["templates"].items()}
        if fields["video"] is not None:
            fields["video"] = VideoLayout.from_fields(fields["video"])
        fields["buckets"] = tuple((height, width) for height, width in fields["buckets"])
        return Manifest(**fields)
