"""The folders and files of an export."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stepwise.description.manifest import FILE as MANIFEST
from stepwise.description.manifest import TOKENIZERS, Manifest
from stepwise.description.spec import Component
from stepwise.export.checkpoint.folder import Checkpoint
from stepwise.export.families import family_export
from stepwise.export.families.base import Keep
from stepwise.export.options import Quantization

PRECISIONS = ("fp32", "fp16")
_PARTIAL = "partial"


@dataclass(frozen=True)
class Target:
    """A checkpoint to be served as ``name`` from ``repository``, in one of ``PRECISIONS``.

    With a ``quantization`` the denoiser is quantized, and ``precision`` is that of the other
    components.
    """

    checkpoint: Checkpoint
    repository: Path
    name: str
    precision: str = "fp32"
    quantization: Quantization | None = None

    @property
    def folder(self) -> Path:
        """The folder of the pipeline's own model, with the manifest and the tokenizers."""
        return self.repository / self.name

    @property
    def tokenizers(self) -> dict[str, Path]:
        """The tokenizer file of every text encoder that the checkpoint has."""
        return {
            encoder.name: self.folder / TOKENIZERS / f"{encoder.name}.json"
            for encoder in self.checkpoint.family.encoders
            if encoder.name not in self.checkpoint.missing
        }

    @property
    def quantized(self) -> str:
        """The digest of the denoiser's quantization; "" without one."""
        return self.quantization.digest if self.quantization else ""

    def model(self, component: Component) -> Path:
        """The folder of a component's model."""
        return self.repository / f"{self.name}_{component.name}"

    def version(self, component: Component) -> Path:
        """The folder of a component's graph."""
        return self.model(component) / "1"

    def keep(self, component: Component) -> Keep:
        """The nodes of a component that stay in float32 in a float16 graph."""
        return family_export(self.checkpoint.family.name).keep(component.name)

    def is_quantized(self, component: Component) -> bool:
        """Whether a component is quantized; only a denoiser can be."""
        return self.quantization is not None and component == self.checkpoint.family.denoiser


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A new folder that replaces ``folder`` when the block succeeds, and is removed otherwise."""
    partial = folder.parent / _PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def describe(
    checkpoint: Checkpoint,
    name: str,
    tokens: dict[str, int],
    templates: dict[str, tuple[str, str]],
) -> Manifest:
    """The manifest, without graphs, of a checkpoint that is to be served as ``name``.

    ``tokens`` and ``templates`` are those of its tokenizers.
    """
    return Manifest(
        family=checkpoint.family.name,
        name=name,
        checkpoint=str(checkpoint.origin),
        loras=tuple(map(str, checkpoint.loras)),
        precision=PRECISIONS[0],
        latent_channels=checkpoint.integer(checkpoint.family.decoder, "latent_channels"),
        vae_scale=checkpoint.vae_scale,
        sides=checkpoint.sides,
        schedule=checkpoint.schedule,
        tokens=tokens,
        missing=checkpoint.missing,
        graphs={},
        size=checkpoint.size,
        templates=templates,
        video=family_export(checkpoint.family.name).video_layout(checkpoint),
        config=str(checkpoint.config or ""),
        buckets=checkpoint.buckets,
        largest_clip_skip=checkpoint.largest_clip_skip,
        zero_negative=checkpoint.zero_negative,
    )


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write ``manifest.json`` into the folder of ``<name>``, whole or not at all."""
    partial = folder / _PARTIAL
    partial.mkdir(exist_ok=True)
    manifest.write(partial)
    (partial / MANIFEST).rename(folder / MANIFEST)
    partial.rmdir()
