"""What only the checkpoint knows: written by ``export``, read by ``<name>_prepare``."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FILE = "manifest.json"
TOKENIZERS = "tokenizers"


@dataclass(frozen=True)
class Sides:
    """Legal picture sides in pixels: multiples of ``multiple`` between the two ends."""

    native: int
    minimum: int
    maximum: int
    multiple: int


@dataclass(frozen=True)
class Manifest:
    """An exported checkpoint.

    ``checkpoint`` is the folder or file that it was made from, ``loras`` what was fused into it, as
    ``file:scale``.

    ``vae_scale`` is pixels per latent along a side. ``schedule`` is the diffusers scheduler's
    config. ``tokens`` maps each text encoder to its sequence length, ``missing`` names the
    optional encoders that the checkpoint lacks, ``graphs`` maps each component to the SHA-256 of
    its graph and weights. ``buckets`` are the only heights and widths in pixels that are served;
    without any, every size within ``sides`` is. ``largest_clip_skip`` is how many layers of CLIP a
    request may leave out, ``zero_negative`` whether an absent negative prompt becomes embeddings of
    zeros, ``source`` the SHA-256 of the checkpoint and its exporter, and ``quantized`` that of what
    its denoiser was quantized to, "" if it was not.
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
    buckets: tuple[tuple[int, int], ...] = ()
    largest_clip_skip: int = 0
    zero_negative: bool = False
    source: str = ""
    loras: tuple[str, ...] = ()
    quantized: str = ""

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
        fields["buckets"] = tuple((height, width) for height, width in fields["buckets"])
        return Manifest(**fields)
