"""Imports go one way: spec <- the rest of pipelines <- {export, every model.py}."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = {"pipelines", "export", "server", "client", "benchmarks", "miniatures"}
ALLOWED = {
    "pipelines": {"pipelines"},
    "export": {"export", "pipelines"},
    "server": {"server", "pipelines"},
    "client": {"client"},
    "benchmarks": {"benchmarks", "client", "export", "miniatures", "pipelines", "server"},
    "model_repository": {"pipelines"},
}


def imported(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not used here"
            names.add(node.module)
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_what_it_may(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        ours = {name.split(".")[0] for name in imported(path)} & OURS
        assert ours <= ALLOWED[package], f"{path.relative_to(ROOT)} imports {ours}"


def test_the_spec_stands_below_everything():
    assert not {name.split(".")[0] for name in imported(ROOT / "pipelines/spec.py")} & OURS


def test_only_one_folder_knows_the_python_backend():
    knowing = [
        path.relative_to(ROOT).as_posix()
        for package in ("pipelines", "export", "client", "model_repository")
        for path in (ROOT / package).rglob("*.py")
        if "triton_python_backend_utils" in imported(path)
    ]
    assert {str(Path(path).parent) for path in knowing} == {"pipelines/triton"}


def test_only_the_page_needs_what_pages_are_made_of():
    code = "import sys, client, client.__main__; print('gradio' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert shown.stdout.strip() == "False", shown.stdout + shown.stderr
    needing = {path for path in (ROOT / "client").rglob("*.py") if "gradio" in imported(path)}
    assert {path.parent for path in needing} == {ROOT / "client" / "page"}


def test_importing_the_pipelines_costs_numpy_and_the_standard_library():
    code = (
        "import sys, pipelines, pipelines.prepare, pipelines.inflight.loop, pipelines.decode; "
        "print(sorted({name.split('.')[0] for name in sys.modules}"
        " & {'torch', 'transformers', 'diffusers', 'tokenizers', 'onnx', 'tritonclient'}))"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert shown.stdout.strip() == "[]", shown.stdout + shown.stderr
