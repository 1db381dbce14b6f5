"""Checks that exports have the formats that this version serves."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stepwise.description import formats
from stepwise.description.files import UnusableFile, read_json
from stepwise.description.manifest import FILE as MANIFEST
from stepwise.server.errors import OldExport, ServerError
from stepwise.server.repository import Exported

ENGINES = "engines.json"


def refuse_old(pipelines: Iterable[Exported]) -> None:
    """Raise ``OldExport`` if a pipeline or an engine was exported in another format."""
    for pipeline in pipelines:
        for problem in (*export_problems(pipeline), *_engine_problems(pipeline)):
            raise OldExport(problem)


def export_problems(pipeline: Exported) -> Iterator[str]:
    """A sentence if a pipeline was exported in a format that this version does not serve."""
    got = {"repository": pipeline.manifest.get("format"), **pipeline.manifest.get("formats", {})}
    for name, number in _due(pipeline).items():
        if got.get(name) != number:
            yield (
                f"{pipeline.folder / MANIFEST}: the format of its {name} is {got.get(name)}, but "
                f"this version serves {number}: export it again with {pipeline.command}"
            )
            return


def _due(pipeline: Exported) -> dict[str, int | str]:
    """The served formats of the repository and of each component."""
    family, manifest = pipeline.family, pipeline.manifest
    precision, quantized = manifest.get("precision", ""), bool(manifest.get("quantized"))
    due: dict[str, int | str] = {"repository": formats.REPOSITORY}
    for part in family.components if family else ():
        is_quantized = quantized and family is not None and part == family.denoiser
        due[part.name] = formats.graph_format(part, precision, is_quantized)
    return due


def _engine_problems(pipeline: Exported) -> Iterator[str]:
    path = pipeline.folder / ENGINES
    for record in _records(path) if os.path.lexists(path) else ():
        problem = engine_problem(record)
        if problem:
            target = record["library"].replace("_", "-")
            # TensorRT for RTX can build for any GPU, TensorRT only for the machine's own.
            gpu = f" --compute-capability {record['compute_capability']}" * target.endswith("rtx")
            yield (
                f"{pipeline.folder.parent / record['file']} {problem}: build it again with "
                f"{pipeline.command} --target {target}{gpu}"
            )


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        return list(read_json(path))
    except (UnusableFile, TypeError) as error:
        raise ServerError(
            f"{path} is not a record of engines ({error}): remove it and build them again."
        ) from error


def engine_problem(record: dict[str, Any]) -> str | None:
    """The problem if an engine was built in a format that this version does not serve."""
    got = record.get("format")
    if got == formats.ENGINE:
        return None
    return f"has the format {got}, but this version serves {formats.ENGINE}"
