"""Finds the exported pipelines of a model repository."""

import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwise.description.family import Family
from stepwise.description.files import UnusableFile, read_json
from stepwise.description.manifest import FILE as MANIFEST
from stepwise.families import FAMILIES
from stepwise.server.errors import NothingToServe, ServerError

# What a folder with a manifest was called after its pipeline's name in former exports.
_FORMER = "_prepare"


@dataclass(frozen=True)
class Exported:
    """A pipeline in a repository; ``manifest`` is the record that its export wrote."""

    name: str
    folder: Path
    manifest: dict[str, Any]

    @property
    def is_former(self) -> bool:
        """Whether an older version exported it, into a folder of another name."""
        return self.folder.name != self.name

    @property
    def family(self) -> Family | None:
        """The family of the pipeline, if this version supports it."""
        return FAMILIES.get(self.manifest.get("family", ""))

    @property
    def makes_videos(self) -> bool:
        """Whether it makes videos."""
        return self.family is not None and self.family.makes_videos

    @property
    def takes_images(self) -> bool:
        """Whether its videos continue an image."""
        return self.family is not None and self.family.image_encoder is not None

    @property
    def models(self) -> tuple[str, ...]:
        """The Triton models of this pipeline: its own first, then its graphs."""
        return (self.name, *(f"{self.name}_{graph}" for graph in self.manifest["graphs"]))

    @property
    def command(self) -> str:
        """The command that exports it again."""
        manifest = self.manifest
        words = ["stepwise", "export", str(manifest.get("family"))]
        words += ["--checkpoint", str(manifest.get("checkpoint"))]
        words += ["--config", manifest["config"]] if manifest.get("config") else []
        for lora in manifest.get("loras", ()):
            words += ["--lora", lora]
        words += ["--repository", str(self.folder.parent), "--name", self.name]
        words += ["--precision", str(manifest.get("precision"))]
        plan = next(self.folder.parent.glob(f"{self.name}_*/1/plan.json"), None)
        return shlex.join([*words, *(["--plan", str(plan)] if plan else [])])


def exported(repository: Path, names: Collection[str] = ()) -> tuple[Exported, ...]:
    """The pipelines of a repository called ``names``, or all, sorted by name.

    A pipeline counts as exported if ``<name>/manifest.json`` exists; a former export, whose folder
    was called otherwise, counts until it is exported again. Raises ``NothingToServe`` if there is
    none or one of ``names`` is missing, and ``ServerError`` if a manifest is invalid.
    """
    read = [_read(path) for path in repository.glob(f"*/{MANIFEST}")]
    again = {pipeline.name for pipeline in read if not pipeline.is_former}
    found = [each for each in read if not (each.is_former and each.name in again)]
    there = sorted(pipeline.name for pipeline in found)
    if missing := sorted(set(names) - set(there)):
        raise NothingToServe(
            f"No pipeline called {missing[0]!r} has been exported to {repository}; there "
            f"{'is' if len(there) == 1 else 'are'} {', '.join(there) or 'none'}."
        )
    found = [pipeline for pipeline in found if not names or pipeline.name in names]
    if not found:
        raise NothingToServe(
            f"No pipeline has been exported to {repository}: make one with "
            f"'stepwise export <pipeline> --checkpoint <folder> --repository {repository}'."
        )
    return tuple(sorted(found, key=lambda pipeline: pipeline.name))


def _read(path: Path) -> Exported:
    try:
        manifest = read_json(path)
        manifest["graphs"], manifest["tokens"], manifest["missing"]
    except UnusableFile as error:
        raise ServerError(f"{error}: export the pipeline again.") from error
    except (KeyError, TypeError) as error:
        raise ServerError(
            f"{path} is not a manifest ({error!r}): export the pipeline again."
        ) from error
    folder = path.parent
    former = folder.name.removesuffix(_FORMER)
    return Exported(former if manifest.get("name") == former else folder.name, folder, manifest)
