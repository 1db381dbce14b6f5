"""Checks whether this machine can load the engines of a repository."""

import hashlib
import importlib
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stepwise.description.files import read_json
from stepwise.server.formats import ENGINES, engine_problem
from stepwise.server.repository import Exported

_BUILD_AGAIN = "build it again with stepwise export and the same --target"

Record = dict[str, Any]


def engine_problems(pipeline: Exported) -> Iterator[str]:
    """One sentence per engine that is missing, damaged or stale according to its record.

    An engine is stale if it was built from another graph, by another version of its library than
    the installed one, or for another GPU than this machine's. A library or GPU that this machine
    lacks is not compared.
    """
    path = pipeline.folder / ENGINES
    if not os.path.lexists(path):
        return
    try:
        records: list[Record] = read_json(path)
        gpu = compute_capability()
        for record in records:
            yield from _first_problem(pipeline, record, gpu)
    except (ValueError, KeyError, TypeError) as error:
        yield f"{path} is not a record of engines ({error!r}): remove it and build them again."


def compute_capability() -> str | None:
    """The compute capability of this machine's first GPU, such as "8.9"; None without one."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = [command, "--query-gpu=compute_cap", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True, check=False)
    return found.stdout.split()[0] if found.returncode == 0 and found.stdout.strip() else None


def _first_problem(pipeline: Exported, record: Record, gpu: str | None) -> Iterator[str]:
    """The first problem of an engine; later problems usually follow from it."""
    checks: tuple[Callable[[], str | None], ...] = (
        lambda: engine_problem(record),
        lambda: graph_problem(record, pipeline.manifest["graphs"]),
        lambda: version_problem(record, installed_version(record["library"])),
        lambda: capability_problem(record, gpu),
        lambda: file_problem(record, pipeline.folder.parent),
    )
    for check in checks:
        problem = check()
        if problem is not None:
            yield f"{pipeline.folder.parent / record['file']} {problem}: {_BUILD_AGAIN}."
            return


def graph_problem(record: Record, graphs: dict[str, str]) -> str | None:
    """The problem if an engine was built from another graph than the manifest's."""
    if record["graph"] == graphs.get(record["component"]):
        return None
    return "was built from another graph than the one next to it"


def version_problem(record: Record, installed: str | None) -> str | None:
    """The problem if the ``installed`` version of its library differs; None is not installed."""
    if installed in (None, record["version"]):
        return None
    return f"was built by {record['library']} {record['version']}, but {installed} is installed"


def capability_problem(record: Record, gpu: str | None) -> str | None:
    """The problem if the machine's GPU has another compute capability; None is no GPU."""
    built = record["compute_capability"]
    if gpu in (None, built):
        return None
    return f"was built for compute capability {built}, but this machine's GPU has {gpu}"


def file_problem(record: Record, repository: Path) -> str | None:
    """The problem of the engine's own file."""
    path = repository / record["file"]
    if not path.is_file():
        return "is missing"
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != record["sha256"]:
            return "has changed since it was built (its hash differs)"
    return None


def installed_version(library: str) -> str | None:
    """The version of the Python module ``library``; None if it is not installed."""
    if importlib.util.find_spec(library) is None:
        return None
    return str(importlib.import_module(library).__version__)
