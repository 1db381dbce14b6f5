"""Imports go one way: between distributions, between rooms, and between the layers of each."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FOLDERS = {"client": ROOT / "client", "serving": ROOT / "serving", "export": ROOT / "export"}
# What a distribution may import of ours.
ALLOWED = {
    "client": {"client"},
    "serving": {"serving"},
    "export": {"export", "serving"},
    "model_repository": {"serving"},
    "benchmarks": {"benchmarks", "client", "export", "miniatures", "serving"},
}
# From top to bottom: a room imports only what stands below it. Rooms in one line import nothing of
# each other.
SERVING = (
    {"server", "triton", "local"},
    {"batching", "video"},
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
# Pairs of files of the exporter of which one imports the other, but for those that quantize.
MOST_IMPORTS = 175


def modules(folder: Path) -> dict[str, Path]:
    """Our modules in a distribution's folder, by name."""
    return {
        ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (folder / "stepwise").rglob("*.py")
        if "backends" not in path.parts
    }


MODULES = {name: path for folder in FOLDERS.values() for name, path in modules(folder).items()}


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not used here"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else str(node.module)


def distribution(module: str) -> str:
    """Which of ours a module is of, "" if it is of none."""
    top, _, rest = module.partition(".")
    if top != "stepwise":
        return top if top in ALLOWED or top == "miniatures" else ""
    room = rest.partition(".")[0]
    return room if room in ("client", "export") else "serving"


@pytest.mark.parametrize("name", ALLOWED)
def test_a_distribution_imports_only_what_it_may(name):
    files = list((ROOT / name).rglob("*.py"))
    assert files
    for path in files:
        ours = {distribution(module) for module in imported(path)} - {""}
        shim = path.name == "__main__.py" and path.parent == ROOT / name
        assert shim or ours <= ALLOWED[name], f"{path.relative_to(ROOT)} imports {ours}"


def edges(prefix: str) -> set[tuple[str, str]]:
    """Each pair of modules with a prefix of which the first imports the second."""
    inside = {name: path for name, path in MODULES.items() if name.startswith(prefix)}
    found = {(name, other) for name, path in inside.items() for other in imported(path)}
    return {(name, other) for name, other in found if other in inside and name != other}


def room(module: str, prefix: str) -> str:
    return module.removeprefix(prefix).partition(".")[0]


@pytest.mark.parametrize(
    ("prefix", "layers"), [("stepwise.", SERVING), ("stepwise.export.", EXPORT)]
)
def test_no_room_imports_what_stands_above_it_or_next_to_it(prefix, layers):
    floor = {name: place for place, names in enumerate(layers) for name in names}
    pairs = {
        (room(one, prefix), room(other, prefix))
        for one, other in edges(prefix)
        if {distribution(one), distribution(other)} == {distribution(prefix + next(iter(floor)))}
    }
    arrows = {(one, other) for one, other in pairs if one and one != other}
    assert arrows
    wrong = {(one, other) for one, other in arrows if floor[one] >= floor[other]}
    print(f"{len(arrows)} arrows between rooms; wrong: {wrong}")
    assert not wrong


def test_the_exporters_files_import_few_others():
    quantize = "stepwise.export.quantize"
    pairs = {
        (one, other)
        for one, other in edges("stepwise.export.")
        if not one.startswith(quantize) and not other.startswith(quantize)
    }
    print(f"{len(pairs)} imports between files, at most {MOST_IMPORTS}")
    assert len(pairs) <= MOST_IMPORTS


def test_no_file_is_long():
    paths = [*MODULES.values(), *(ROOT / "benchmarks").rglob("*.py")]
    long = {path: len(path.read_text().splitlines()) for path in paths}
    assert {path.name: n for path, n in long.items() if n > MOST_LINES} == {}


def test_the_spec_stands_below_everything():
    assert not {distribution(name) for name in imported(MODULES["stepwise.description.spec"])} - {
        ""
    }


def test_only_one_folder_knows_the_python_backend():
    knowing = {
        name for name, path in MODULES.items() if "triton_python_backend_utils" in imported(path)
    }
    assert {name.rpartition(".")[0] for name in knowing} == {"stepwise.triton"}


def shown(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_only_the_page_needs_what_pages_are_made_of():
    code = "import sys, stepwise.client.cli.generate; print('gradio' in sys.modules)"
    assert shown(code) == "False"
    needing = {path for path in MODULES.values() if "gradio" in imported(path)}
    assert {path.parent.name for path in needing} == {"page"}


def test_the_client_and_the_help_of_its_command_need_few_libraries():
    heavy = "{'torch', 'gradio', 'av', 'PIL', 'tqdm', 'diffusers', 'onnxruntime'}"
    for start in ("stepwise.client", "stepwise.client.cli.main; stepwise.client.cli.main.main([])"):
        code = f"import sys, {start}; print(sorted({heavy} & set(sys.modules)))"
        assert shown(code).splitlines()[-1] == "[]"


def test_importing_what_serves_costs_numpy_and_the_standard_library():
    code = (
        "import sys, stepwise.families, stepwise.request.prepare, stepwise.batching.loop; "
        "list(stepwise.families.FAMILIES.values()); "
        "print(sorted({name.split('.')[0] for name in sys.modules}"
        " & {'torch', 'transformers', 'diffusers', 'tokenizers', 'onnx', 'tritonclient'}))"
    )
    assert shown(code) == "[]"


def test_the_registry_imports_no_family_until_it_is_asked_for_one():
    code = "import sys, stepwise.families; print('stepwise.families.sd3' in sys.modules)"
    assert shown(code) == "False"
