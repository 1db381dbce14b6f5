"""``stepwise check``: verifies the exported files and makes a test picture per pipeline."""

import logging
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from google.protobuf import text_format
from tokenizers import Tokenizer
from tritonclient.grpc import model_config_pb2

from stepwise.description import files
from stepwise.description.graph_files import graph_digest
from stepwise.description.manifest import TOKENIZERS
from stepwise.server.engines import engine_problems
from stepwise.server.errors import TritonFailed
from stepwise.server.formats import export_problems
from stepwise.server.process import serving
from stepwise.server.repository import Exported, exported
from stepwise.server.smoke_request import picture_problem

logger = logging.getLogger(__name__)

_EXPORT_AGAIN = "export the pipeline again"


def check(repository: Path, names: Collection[str] = ()) -> bool:
    """Check the pipelines called ``names``, or all; true if no check finds a problem.

    Prints one line per check. Files come first: formats, configs, graphs against the hashes of the
    manifest, tokenizers, engines against their records. If all files pass, a server starts on free
    ports and each pipeline makes one picture in one step. Raises ``NothingToServe``.
    """
    pipelines = exported(repository, names)
    problems = 0
    for pipeline in pipelines:
        for title, find in _FILE_CHECKS.items():
            problems += _report(f"{pipeline.name} {title}", find(pipeline))
    return problems == 0 and _check_serving(repository, pipelines)


def _check_serving(repository: Path, pipelines: tuple[Exported, ...]) -> bool:
    try:
        names = [pipeline.name for pipeline in pipelines]
        with serving(repository, names=names) as server:
            problems = [
                _report(f"{pipeline.name} picture", picture_problem(server.grpc_url, pipeline))
                for pipeline in pipelines
            ]
    except TritonFailed as error:
        logger.error("%s\n", error.log_tail)
        problems = [_report("start", iter([str(error)]))]
    return sum(problems) == 0


def _report(title: str, found: Iterator[str]) -> int:
    problems = list(found)
    for problem in problems:
        print(f"problem  {title}: {problem}", flush=True)
    if not problems:
        print(f"ok       {title}", flush=True)
    return len(problems)


def _config_problems(pipeline: Exported) -> Iterator[str]:
    for model in pipeline.models:
        path = pipeline.folder.parent / model / "config.pbtxt"
        try:
            files.check(path)
            config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
        except files.UnusableFile as error:
            yield f"{error}: {_EXPORT_AGAIN}."
        except (text_format.ParseError, UnicodeDecodeError) as error:
            yield f"{path} is not a model config ({error}): restore it or {_EXPORT_AGAIN}."
        else:
            if config.name not in ("", model):
                yield f"{path} names the model {config.name!r}: it must say {model!r}."


def _graph_problems(pipeline: Exported) -> Iterator[str]:
    for component, expected in pipeline.manifest["graphs"].items():
        folder = pipeline.folder.parent / f"{pipeline.name}_{component}" / "1"
        if not folder.is_dir():
            yield f"{folder} is missing: {_EXPORT_AGAIN}."
        elif graph_digest(folder) != expected:
            yield f"{folder} has changed since the export (its hash differs): {_EXPORT_AGAIN}."


def _tokenizer_problems(pipeline: Exported) -> Iterator[str]:
    for encoder in pipeline.manifest["tokens"].keys() - set(pipeline.manifest["missing"]):
        path = pipeline.folder / TOKENIZERS / f"{encoder}.json"
        try:
            files.check(path)
            Tokenizer.from_file(str(path))
        except files.UnusableFile as error:
            yield f"{error}: {_EXPORT_AGAIN}."
        except Exception as error:  # tokenizers raises nothing more specific
            yield f"{path} cannot be loaded ({error}): {_EXPORT_AGAIN}."


_FILE_CHECKS: dict[str, Callable[[Exported], Iterator[str]]] = {
    "format": export_problems,
    "configs": _config_problems,
    "graphs": _graph_problems,
    "tokenizers": _tokenizer_problems,
    "engines": engine_problems,
}
