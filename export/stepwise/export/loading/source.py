"""Where a checkpoint comes from: a diffusers folder, one file, or a repository on the Hub."""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from export.checkpoint import Checkpoint, open_checkpoint
from export.errors import CheckpointError
from export.lora import check_lora, parse_lora
from export.original import open_original
from pipelines.spec import Pipeline

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def open_source(
    source: str, pipeline: Pipeline, config: Path | None = None, loras: Iterable[str] = ()
) -> Checkpoint:
    """Open what ``--checkpoint`` names, with the LoRAs of every ``--lora``.

    The Hub is asked only for what has the form ``owner/name`` where neither that path nor a folder
    ``owner`` is here. ``config`` goes with a file. Raises CheckpointError.
    """
    parsed = tuple(map(parse_lora, loras))
    for lora in parsed:
        check_lora(lora)
    path = Path(source)
    if config is not None and not path.is_file():
        raise CheckpointError(f"--config {config}: {source} is no file; leave --config out")
    return replace(_open(source, path, pipeline, config), loras=parsed, config=config)


def _open(source: str, path: Path, pipeline: Pipeline, config: Path | None) -> Checkpoint:
    if path.is_file():
        return open_original(path, pipeline, config)
    if path.exists() or path.parent.exists() or not _REPOSITORY.fullmatch(source):
        return open_checkpoint(path, pipeline)
    from export.hub import download  # an import that others need not wait for

    return open_checkpoint(download(source, pipeline), pipeline)
