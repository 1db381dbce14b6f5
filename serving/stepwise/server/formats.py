"""Whether what was exported has the formats that this version serves."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from stepwise.description import formats
from stepwise.description.manifest import FILE as MANIFEST
from stepwise.server.errors import OldExport
from stepwise.server.repository import Exported

ENGINES = "engines.json"


def refuse_old(pipelines: Iterable[Exported]) -> None:
    """Raise ``OldExport`` for a pipeline or an engine that was exported in another format."""
    for pipeline in pipelines:
        for problem in (*export_problems(pipeline), *_engine_problems(pipeline)):
            raise OldExport(problem)


def export_problems(pipeline: Exported) -> Iterator[str]:
    """A sentence if a pipeline was exported in another format than the one that is served."""
    got = {"repository": pipeline.manifest.get("format"), **pipeline.manifest.get("formats", {})}
    for name, number in _due(pipeline).items():
        if got.get(name) != number:
            yield (
                f"{pipeline.folder / MANIFEST}: the format of its {name} is {got.get(name)} where "
                f"this version serves {number}: export it again with {pipeline.command}"
            )
            return


def _due(pipeline: Exported) -> dict[str, int | str]:
    """The format of the repository and of each component of a family."""
    family, manifest = pipeline.family, pipeline.manifest
    precision, quantized = manifest.get("precision", ""), bool(manifest.get("quantized"))
    due: dict[str, int | str] = {"repository": formats.REPOSITORY}
    for part in family.components if family else ():
        is_quantized = quantized and family is not None and part == family.denoiser
        due[part.name] = formats.graph_format(part, precision, is_quantized)
    return due


def _engine_problems(pipeline: Exported) -> Iterator[str]:
    path = pipeline.folder / ENGINES
    for record in json.loads(path.read_text()) if path.is_file() else ():
        problem = engine_problem(record)
        if problem:
            target = record["library"].replace("_", "-")
            # TensorRT for RTX builds for any GPU, TensorRT for the one that is there.
            gpu = f" --compute-capability {record['compute_capability']}" * target.endswith("rtx")
            yield (
                f"{pipeline.folder.parent / record['file']} {problem}: build it again with "
                f"{pipeline.command} --target {target}{gpu}"
            )


def engine_problem(record: dict[str, Any]) -> str | None:
    """What is wrong if an engine was built in another format than the one that is served."""
    got = record.get("format")
    if got == formats.ENGINE:
        return None
    return f"has the format {got} where this version serves {formats.ENGINE}"
