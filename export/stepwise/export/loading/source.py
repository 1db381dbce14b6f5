"""Opens a checkpoint from a diffusers folder, a single file, or a repository on the Hub."""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from stepwise.description.family import Family
from stepwise.export.checkpoint.folder import Checkpoint, open_folder
from stepwise.export.checkpoint.lora_file import check_lora, parse_lora
from stepwise.export.checkpoint.single_file import open_original
from stepwise.export.errors import CheckpointError
from stepwise.export.families import family_export

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def open_source(
    source: str, family: Family, config: Path | None = None, loras: Iterable[str] = ()
) -> Checkpoint:
    """Open the checkpoint that ``--checkpoint`` names, with the LoRAs of every ``--lora``.

    The Hub is asked only if ``source`` has the form ``owner/name`` and neither that path nor a
    folder ``owner`` exists locally. ``config`` goes with a file. Raises CheckpointError.
    """
    parsed = tuple(map(parse_lora, loras))
    for lora in parsed:
        check_lora(lora)
    path = Path(source)
    _check_access(path)
    if config is not None and not path.is_file():
        raise CheckpointError(f"--config {config}: {source} is no file; leave --config out")
    opened = replace(_open(source, path, family, config), loras=parsed, config=config)
    return _as_served(opened)


def open_checkpoint(folder: Path, family: Family) -> Checkpoint:
    """Open a folder in the diffusers layout; raises CheckpointError if it is not of ``family``."""
    return _as_served(open_folder(folder, family))


def _as_served(checkpoint: Checkpoint) -> Checkpoint:
    exporter = family_export(checkpoint.family.name)
    return replace(checkpoint, family=exporter.served(checkpoint))


def _check_access(path: Path) -> None:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # perhaps a repository
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}); give the folder or file of a checkpoint"
        ) from error


def _open(source: str, path: Path, family: Family, config: Path | None) -> Checkpoint:
    if path.exists() and not path.is_dir():
        return open_original(path, family, family_export(family.name).single_file, config)
    if path.exists() or path.parent.exists() or not _REPOSITORY.fullmatch(source):
        return open_folder(path, family)
    from stepwise.export.checkpoint.hub import download  # a slow import

    return open_folder(download(source, family), family)
