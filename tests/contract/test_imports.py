"""Imports go one way: between distributions and between the packages of each."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FOLDERS = {"client": ROOT / "client", "serving": ROOT / "serving", "export": ROOT / "export"}
# Which of our distributions each one may import.
ALLOWED = {
    "client": {"client"},
    "serving": {"serving"},
    "export": {"export", "serving"},
    "model_repository": {"serving"},
    "benchmarks": {"benchmarks", "client", "export", "miniatures", "serving"},
}
# From top to bottom: a package imports only packages on lower lines. Packages on one line do not
# import each other.
SERVING = (
    {"server", "triton", "local"},
    {"batching", "encoding", "video"},
    {"request"},
    {"families", "sampling"},
    {"description"},
)
EXPORT = (
    {"cli"},
    {"run"},
    {"quantize"},
    {"preflight", "tensorrt"},
    {"fp16", "repository"},
    {"onnx"},
    {"loading"},
    {"families"},
    {"checkpoint", "modules"},
    {"errors", "options", "progress"},
)
MOST_LINES = 300
# Imports between files of the exporter, without its quantization.
MOST_IMPORTS = 180


def modules(folder: Path) -> dict[str, Path]:
    """Our modules in a distribution's folder, by name."""
    return {
        ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (folder / "stepwise").rglob("*.py")
        if "backends" not in path.parts
    }


MODULES = {name: path for folder in FOLDERS.values() for name, path in modules(folder).items()}


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, at any place in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: use absolute imports"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else str(node.module)


def distribution(module: str) -> str:
    """The distribution that a module belongs to, "" for a third-party module."""
    top, _, rest = module.partition(".")
    if top != "stepwise":
        return top if top in ALLOWED or top == "miniatures" else ""
    room = rest.partition(".")[0]
    return room if room in ("client", "export") else "serving"


@pytest.mark.parametrize("name", ALLOWED)
def test_a_distribution_imports_only_allowed_ones(name: str) -> None:
    files = list((ROOT / name).rglob("*.py"))
    assert files
    for path in files:
        ours = {distribution(module) for module in imported(path)} - {""}
        shim = path.name == "__main__.py" and path.parent == ROOT / name
        assert shim or ours <= ALLOWED[name], f"{path.relative_to(ROOT)} imports {ours}"


def edges(prefix: str) -> set[tuple[str, str]]:
    """Pairs of modules with a prefix, where the first imports the second."""
    inside = {name: path for name, path in MODULES.items() if name.startswith(prefix)}
    found = {(name, other) for name, path in inside.items() for other in imported(path)}
    return {(name, other) for name, other in found if other in inside and name != other}


def room(module: str, prefix: str) -> str:
    return module.removeprefix(prefix).partition(".")[0]


@pytest.mark.parametrize(
    ("prefix", "layers"), [("stepwise.", SERVING), ("stepwise.export.", EXPORT)]
)
def test_no_package_imports_one_above_or_next_to_it(
    prefix: str, layers: tuple[set[str], ...]
) -> None:
    floor = {name: place for place, names in enumerate(layers) for name in names}
    pairs = {
        (room(one, prefix), room(other, prefix))
        for one, other in edges(prefix)
        if {distribution(one), distribution(other)} == {distribution(prefix + next(iter(floor)))}
    }
    arrows = {(one, other) for one, other in pairs if one and one != other}
    assert arrows
    wrong = {(one, other) for one, other in arrows if floor[one] >= floor[other]}
    print(f"{len(arrows)} imports between packages; wrong: {wrong}")
    assert not wrong


def test_files_of_the_exporter_import_few_others() -> None:
    quantize = "stepwise.export.quantize"
    pairs = {
        (one, other)
        for one, other in edges("stepwise.export.")
        if not one.startswith(quantize) and not other.startswith(quantize)
    }
    print(f"{len(pairs)} imports between files, at most {MOST_IMPORTS}")
    assert len(pairs) <= MOST_IMPORTS


def test_no_file_is_long() -> None:
    paths = [*MODULES.values(), *(ROOT / "benchmarks").rglob("*.py")]
    long = {path: len(path.read_text().splitlines()) for path in paths}
    assert {path.name: n for path, n in long.items() if n > MOST_LINES} == {}


def test_the_spec_imports_none_of_our_modules() -> None:
    assert not {distribution(name) for name in imported(MODULES["stepwise.description.spec"])} - {
        ""
    }


def test_only_the_triton_package_imports_the_python_backend() -> None:
    knowing = {
        name for name, path in MODULES.items() if "triton_python_backend_utils" in imported(path)
    }
    assert {name.rpartition(".")[0] for name in knowing} == {"stepwise.triton"}


def shown(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_only_the_page_imports_gradio() -> None:
    code = "import sys, stepwise.client.cli.generate; print('gradio' in sys.modules)"
    assert shown(code) == "False"
    needing = {path for path in MODULES.values() if "gradio" in imported(path)}
    assert {path.parent.name for path in needing} == {"page"}


def test_the_client_and_the_help_of_its_command_need_few_libraries() -> None:
    heavy = "{'torch', 'gradio', 'av', 'PIL', 'tqdm', 'diffusers', 'onnxruntime'}"
    for start in ("stepwise.client", "stepwise.client.cli.main; stepwise.client.cli.main.main([])"):
        code = f"import sys, {start}; print(sorted({heavy} & set(sys.modules)))"
        assert shown(code).splitlines()[-1] == "[]"


def test_serving_modules_import_only_numpy_and_the_standard_library() -> None:
    code = (
        "import sys, stepwise.families, stepwise.request.prepare, stepwise.batching.loop; "
        "list(stepwise.families.FAMILIES.values()); "
        "print(sorted({name.split('.')[0] for name in sys.modules}"
        " & {'torch', 'transformers', 'diffusers', 'tokenizers', 'onnx', 'tritonclient'}))"
    )
    assert shown(code) == "[]"


def test_the_registry_imports_no_family_before_its_first_use() -> None:
    code = "import sys, stepwise.families; print('stepwise.families.sd3' in sys.modules)"
    assert shown(code) == "False"
