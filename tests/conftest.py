"""Exports that tests share, and the order of test modules.

``make test`` skips tests marked ``further``: more members of a set that it already samples.
"""

import ast
import gc
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

# Two tests run at once, one per core. Numerical libraries read this when they are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from filelock import FileLock, Timeout
from xdist.scheduler import LoadScopeScheduling

from stepwise.families import FAMILIES

ROOT = Path(__file__).parents[1]
# Tests of a module run one after another, in one process. Modules of a group share fixtures and
# run in sequence; groups start in this order, the longest first.
GROUPS = {
    "tests/e2e/test_pictures.py": "live",
    "tests/e2e/test_samplers.py": "live",
    "tests/e2e/test_batching.py": "live",
    "tests/e2e/test_serving.py": "live",
    "tests/e2e/test_direct_messages.py": "live",
    "tests/e2e/test_hang_ups.py": "families",
    "tests/e2e/test_client.py": "live",
    "tests/e2e/test_bad_input.py": "live",
    "tests/e2e/test_page.py": "live",
    "tests/e2e/test_sdxl.py": "families",
    "tests/e2e/test_videos.py": "families",
    "tests/e2e/test_local.py": "families",
    "tests/e2e/test_fuzz.py": "families",
    "tests/e2e/test_fuzz_models.py": "families",
    "tests/e2e/test_leavers.py": "families",
    "tests/e2e/test_draining.py": "families",
    "tests/e2e/test_limits.py": "families",
    "tests/e2e/test_benchmarks.py": "families",
    "tests/e2e/clients/": "clients",
    "tests/unit/export/quantize/": "quantize",
}


def further(*values: object) -> object:
    """A set of parameters that only ``make test-all`` runs."""
    return pytest.param(*values, marks=pytest.mark.further)


def pytest_configure(config):
    config.addinivalue_line("markers", "further: only make test-all runs this member of a set")
    config.addinivalue_line("markers", "draws(name): the checkpoint source that a test serves")


def _group(nodeid: str) -> str:
    place = nodeid.partition("::")[0]
    return next((group for part, group in GROUPS.items() if place.startswith(part)), place)


def pytest_collection_modifyitems(items):
    order = list(dict.fromkeys(GROUPS.values()))
    groups = {item: _group(item.nodeid) for item in items}
    items.sort(key=lambda item: order.index(groups[item]) if groups[item] in order else len(order))


class Groups(LoadScopeScheduling):
    """Gives each process one group at a time, or one module without a group."""

    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return Groups(config, log)


def pytest_collection_finish(session):
    # As in an export: garbage collection then skips imported libraries.
    gc.freeze()


def code(*folders: str) -> str:
    """A digest of the code in these folders, without comments and docstrings."""
    total = hashlib.sha256()
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            said = body[0] if isinstance(body, list) and body else None
            if isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant):
                said.value.value = None
        total.update(f"{path.relative_to(ROOT)} {ast.dump(tree)}".encode())
    return total.hexdigest()


# Exports are kept between runs while the code that writes them stays the same. With format numbers
# alone as keys, a change without a new number would be hidden from its tests.
CODE = code("export/stepwise", "serving/stepwise")[:16]
EXPORTED = ROOT / "out" / "tests" / CODE
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "stepwise" / "graphs"
KEPT_SECONDS = 7 * 24 * 60 * 60
os.environ.setdefault("STEPWISE_GRAPHS", str(CACHE / CODE))


def pytest_sessionstart(session):
    """Delete exports of other code: in this folder at once, in the shared cache after a week."""
    if not hasattr(session.config, "workerinput"):
        others = [folder for folder in EXPORTED.parent.glob("*") if folder != EXPORTED]
        others += [
            folder
            for folder in CACHE.glob("*")
            if folder.name != CODE and time.time() - folder.stat().st_mtime > KEPT_SECONDS
        ]
        for folder in others:
            shutil.rmtree(folder, ignore_errors=True)


def export(family: str, checkpoint: Path, *options: str) -> None:
    """Export a checkpoint in this process; fast if the export exists."""
    from stepwise.export.cli import parsed, run

    run(parsed([family, "--checkpoint", str(checkpoint), *options]))


def export_all(checkpoints: Mapping[str, Path], repository: Path, *options: str) -> Path:
    """Export the miniature of each family; concurrent test processes share the work."""
    EXPORTED.mkdir(parents=True, exist_ok=True)
    due = dict(checkpoints)
    while due:
        for family, checkpoint in list(due.items()):
            lock = FileLock(EXPORTED / f"{repository.name}_{family}.lock")
            try:
                with lock.acquire(timeout=0):
                    export(family, checkpoint, "--repository", str(repository), *options)
                    del due[family]
            except Timeout:
                time.sleep(0.1)
    return repository


def only(checkpoints: Mapping[str, Path], families: Iterable[str]) -> dict[str, Path]:
    return {family: checkpoints[family] for family in families}


# Families with a trained miniature; for others tests compare a random checkpoint with diffusers.
TRAINED = {name: each for name, each in FAMILIES.items() if (ROOT / "miniatures" / name).is_dir()}
VIDEOS = [name for name, family in TRAINED.items() if family.makes_videos]


@pytest.fixture(scope="session")
def repository() -> Path:
    """A model repository with the SD3 miniature."""
    return export_all({"sd3": Path("miniatures/sd3")}, EXPORTED / "sd3")


@pytest.fixture(scope="session")
def checkpoints() -> dict[str, Path]:
    """The miniature of each family."""
    return {family: ROOT / "miniatures" / family for family in TRAINED}


@pytest.fixture(scope="session")
def families(checkpoints: dict[str, Path]) -> Path:
    """A model repository with every family."""
    return export_all(checkpoints, EXPORTED / "families")


@pytest.fixture(scope="session")
def halves(checkpoints: dict[str, Path]) -> Path:
    """A model repository with every family in float16."""
    return export_all(checkpoints, EXPORTED / "halves", "--precision", "fp16")


@pytest.fixture(scope="session")
def videos(checkpoints: dict[str, Path]) -> Path:
    """The repository of ``families``, with at least every video family exported."""
    return export_all(only(checkpoints, VIDEOS), EXPORTED / "families")


@pytest.fixture(scope="session")
def half_videos(checkpoints: dict[str, Path]) -> Path:
    """The repository of ``halves``, with at least every video family exported."""
    return export_all(only(checkpoints, VIDEOS), EXPORTED / "halves", "--precision", "fp16")
