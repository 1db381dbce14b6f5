"""Properties of an exported checkpoint. ``export`` writes them, ``<name>`` reads them."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stepwise.description import formats
from stepwise.description.files import read_json
from stepwise.description.vae_caches import Cache

FILE = "manifest.json"
TOKENIZERS = "tokenizers"


@dataclass(frozen=True)
class Sides:
    """Allowed picture sides in pixels: multiples of ``multiple`` from ``minimum`` to ``maximum``.

    ``native`` is the side that the checkpoint was trained at; for videos, the height.
    """

    native: int
    minimum: int
    maximum: int
    multiple: int


@dataclass(frozen=True)
class VideoLayout:
    """The video properties of a checkpoint.

    The first latent frame encodes one video frame, every other one ``frames`` of them, with
    ``scale`` pixels per latent along a side. ``patch`` is the side of the denoiser's patches in
    latents. ``head_dim`` is the width of its attention heads and rotary tables. ``decoder_caches``
    and ``encoder_caches`` are the caches of the autoencoder's graphs. A frame with a side of more
    than ``tile`` pixels goes through the autoencoder in tiles that begin ``tile_stride`` pixels
    apart. Latents are multiplied by ``scaling_factor``. ``reference_noise`` is the standard
    deviation of the noise added to the images that a video continues; 0 adds none.
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
        """The number of latent frames of a video with ``frames`` frames."""
        return (frames - 1) // self.frames + 1

    @staticmethod
    def from_fields(fields: dict[str, Any]) -> "VideoLayout":
        """The inverse of ``dataclasses.asdict``, after a round trip through JSON."""
        caches = {
            name: tuple(Cache(**cache) for cache in fields[name])
            for name in ("decoder_caches", "encoder_caches")
        }
        return VideoLayout(**{**fields, **caches})


@dataclass(frozen=True)
class Manifest:
    """An exported checkpoint.

    ``checkpoint`` is its source folder or file. ``loras`` lists the LoRAs fused into it, as
    ``file:scale``. ``config`` is the config folder given for a single-file checkpoint.

    ``vae_scale`` is pixels per latent along a side. ``schedule`` is the diffusers scheduler's
    config. ``tokens`` maps each text encoder to its sequence length. ``missing`` names the optional
    encoders that the checkpoint lacks. ``graphs`` maps each component to the SHA-256 of its graph
    and weights. ``size`` is the default height and width of a request: both are the native side
    unless the checkpoint says otherwise. ``templates`` maps each chat text encoder to the text
    before and after the prompt. ``video`` is None for pipelines that make pictures. ``buckets`` are
    the only served heights and widths in pixels; if empty, every size within ``sides`` is served.
    A request may skip up to ``largest_clip_skip`` layers of CLIP. ``zero_negative`` is whether an
    absent negative prompt becomes embeddings of zeros.

    ``source`` is the SHA-256 of all inputs of the export. ``quantized`` is the digest of the
    denoiser's quantization, "" if it has none. ``format`` and, by component, ``formats`` are
    defined in ``stepwise.description.formats``.
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
        """Write ``manifest.json`` into the folder of ``<name>``."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2, sort_keys=True) + "\n")

    @staticmethod
    def read(folder: Path) -> "Manifest":
        """Read ``manifest.json`` from the folder of ``<name>``; raises UnusableFile."""
        fields = read_json(folder / FILE)
        fields["sides"] = Sides(**fields["sides"])
        fields["missing"] = tuple(fields["missing"])
        fields["loras"] = tuple(fields.get("loras", ()))
        fields["size"] = tuple(fields["size"])
        fields["templates"] = {k: (a, b) for k, (a, b) in fields["templates"].items()}
        if fields["video"] is not None:
            fields["video"] = VideoLayout.from_fields(fields["video"])
        fields["buckets"] = tuple((height, width) for height, width in fields["buckets"])
        return Manifest(**fields)
