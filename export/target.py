"""Where an export goes, and whether it is already there."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from export import configs, report
from export.checkpoint import Checkpoint
from pipelines.manifest import TOKENIZERS, Manifest
from pipelines.spec import Component


@dataclass(frozen=True)
class Target:
    """A checkpoint to be served as ``name`` from ``repository``."""

    checkpoint: Checkpoint
    repository: Path
    name: str

    @property
    def prepare(self) -> Path:
        """The folder of ``<name>_prepare``, which holds what only the checkpoint knows."""
        return self.repository / f"{self.name}_prepare"

    @property
    def tokenizers(self) -> dict[str, Path]:
        """The tokenizer file of every text encoder that the checkpoint has."""
        return {
            encoder.name: self.prepare / TOKENIZERS / f"{encoder.name}.json"
            for encoder in self.checkpoint.pipeline.encoders
            if encoder.name not in self.checkpoint.missing
        }

    def model(self, component: Component) -> Path:
        """The folder of a component's model."""
        return self.repository / f"{self.name}_{component.name}"

    def version(self, component: Component) -> Path:
        """The folder of a component's graph."""
        return self.model(component) / "1"


def graph_digest(folder: Path) -> str:
    """SHA-256 over the hexadecimal SHA-256 of each file in a version folder, in name order."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").hexdigest().encode())
    return total.hexdigest()


def is_finished(target: Target, source: str) -> bool:
    """Whether the target holds a whole export; ``source`` is what its digest should be."""
    try:
        manifest = Manifest.read(target.prepare)
        report.read(target.prepare)
    except (OSError, ValueError, TypeError, KeyError):
        return False
    components = target.checkpoint.pipeline.components
    files = [*target.tokenizers.values()]
    files += [target.model(component) / configs.FILE for component in components]
    return (
        manifest.source == source
        and all(path.is_file() for path in files)
        and all(_is_whole(target, manifest, component) for component in components)
    )


def _is_whole(target: Target, manifest: Manifest, component: Component) -> bool:
    folder = target.version(component)
    return folder.is_dir() and graph_digest(folder) == manifest.graphs.get(component.name)
