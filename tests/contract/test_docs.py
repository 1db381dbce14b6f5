"""README.md, CONTRIBUTING.md, findings/ and docs/: commands, links and quoted errors exist.

A command's module, options, make target and files exist. The documentation builds strictly.
"""

import ast
import functools
import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from markdown.extensions.toc import slugify

from stepwise.client import presets
from stepwise.families import FAMILIES
from tests.support.paths import ROOT, STEPWISE

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "findings/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"
# Made by commands of the pages; every other word that looks like a path must be a file.
MADE = (".venv/", "out/", "checkpoints/")
HUB = ("stabilityai/", "alibaba-pai/", "SPO-Diffusion-Models/", "madebyollin/")
DISTRIBUTIONS = ("client", "serving", "export")
# A link to a file of this repository, and the heading in it.
LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)#?([^)\s]*)\)")
IMAGES = {"stepwise-export": "export", "stepwise": "serve"}
DOCKER_VALUES = {
    *("--file", "--gpus", "--publish", "--shm-size", "--stop-timeout", "--tag", "--target"),
    *("--user", "--volume"),
}
DOCKER_FLAGS = {"--rm", "--detach"}
SHELLS = ("sh", "bash", "shell")
HF = {"download": {"--local-dir", "--include", "--exclude", "--force-download"}, "auth": set()}


def commands(page: Path) -> list[str]:
    """The shell commands of a page: indented blocks and shell fences, continuations joined."""
    text = re.sub(r"\\\n\s*", "", page.read_text())
    fences = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for name, block in fences if name in SHELLS for line in block.splitlines()]
    unfenced = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines += re.findall(r"^    (\S.*)$", unfenced, flags=re.MULTILINE)
    return [line for line in lines if shlex.split(line, comments=True)]


CASES = [(page.relative_to(ROOT).as_posix(), line) for page in PAGES for line in commands(page)]


@functools.cache
def help_of(*command: str) -> str:
    done = subprocess.run(
        [*command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def options(words: list[str]) -> list[str]:
    return [word.partition("=")[0] for word in words if word.startswith("--")]


def known(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))


def check_stepwise(command: str, words: list[str]) -> None:
    if command == "--version":
        return
    text = help_of(STEPWISE, command)
    allowed = known(text)
    check_presets(command, words)
    if command in ("generate", "video", "repeat"):
        pipeline = FAMILIES.get(words[0], FAMILIES["sd3"])
        settings = {tensor.name for tensor in pipeline.request} - {"prompt"}
        own = known(text.partition("\noptions:")[2])
        allowed = own | {f"--{name.replace('_', '-')}" for name in settings}
    check_options(f"stepwise {command}", words, allowed, text)
    if command == "export":
        assert words[0] in FAMILIES, words[0]


def check_module(module: str, words: list[str]) -> None:
    text = help_of(sys.executable, "-m", module)
    check_options(f"python -m {module}", words, known(text), text)


def check_options(command: str, words: list[str], allowed: set[str], text: str) -> None:
    for option in options(words):
        assert option in allowed, f"{command} has no {option}, but {sorted(allowed)}"
        choices = re.search(rf"{option} {{(.+?)}}", text)
        if choices:
            assert words[words.index(option) + 1] in choices[1].split(",")


def check_presets(command: str, words: list[str]) -> None:
    named = words if command == "presets" else []
    named += [value for option, value in pairwise(words) if option == "--preset"]
    assert set(named) <= set(presets.names())


def check_make(target: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert target in targets, f"the Makefile has no {target}, but {targets}"


def check_hf(words: list[str]) -> None:
    shown = known(help_of(str(Path(sys.executable).with_name("hf")), *subcommand(words)))
    assert set(options(words)) <= shown


def subcommand(words: list[str]) -> list[str]:
    return words[:2] if words[0] == "auth" else words[:1]


def check_docker(words: list[str]) -> None:
    """Docker options must be known; words after one of our images are that command's options."""
    named = next((word for word in words if word in IMAGES and words[0] == "run"), None)
    end = words.index(named) if named else len(words)
    assert set(options(words[:end])) <= DOCKER_VALUES | DOCKER_FLAGS
    if "--target" in words[:end]:
        stages = re.findall(r"^FROM \S+ AS (\w+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        assert words[words.index("--target") + 1] in stages
    if named:
        check_stepwise(IMAGES[named], words[end + 1 :])


def check_files(words: list[str]) -> None:
    for word in words:
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)+", word) and not word.startswith(MADE):
            repository = word.count("/") == 1 and word.startswith(HUB)
            assert repository or (ROOT / word).exists(), f"{word} does not exist"


@functools.cache
def strings() -> str:
    """Every string of the three distributions; of an f-string, the parts between its values."""
    sources = [path for name in DISTRIBUTIONS for path in sorted((ROOT / name).rglob("*.py"))]
    nodes = [node for path in sources for node in ast.walk(ast.parse(path.read_text()))]
    values = [node.value for node in nodes if isinstance(node, ast.Constant)]
    return "\n".join(value for value in values if isinstance(value, str))


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {slugify(heading, "-") for heading in headings}


def test_pages_have_commands():
    pages = {page.relative_to(ROOT).as_posix() for page in PAGES}
    assert len(pages) >= 5
    # Decisions and examples of style explain; they need not have a command.
    due = {page for page in pages if not page.startswith(("docs/decisions/", "docs/style-"))}
    assert due <= {page for page, _ in CASES} <= pages


@pytest.mark.parametrize(("page", "line"), CASES, ids=[line for _, line in CASES])
def test_a_documented_command_exists(page, line):
    words = shlex.split(line, comments=True)
    program, rest = os.path.basename(words[0]), words[1:]
    if program == "python":
        assert rest[0] == "-m", f"{page}: {line}"
        check_module(rest[1], rest[2:])
    elif program == "stepwise":
        check_stepwise(rest[0], rest[1:])
    elif program == "make":
        check_make(rest[0])
    elif program == "hf":
        check_hf(rest)
    elif program == "docker":
        check_docker(rest)
    elif program == ".":
        assert rest == [".venv/bin/activate"]
    elif program != "bash":
        pytest.fail(f"{page} uses {program}, which this test knows nothing of: {line}")
    check_files(rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page):
    for target, anchor in LINK.findall(page.read_text()):
        linked = page.parent / target if target else page
        assert linked.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(linked), f"{target} has no heading {anchor}"


QUOTED = re.findall(r"^```text\n(.*?)^```", TROUBLESHOOTING.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("sentence", [line for block in QUOTED for line in block.splitlines()])
def test_a_quoted_error_is_in_the_code(sentence):
    known = strings()
    for part in map(str.strip, re.split(r"<[^>]+>", sentence)):
        assert part in known, f"no error says {part!r}"


def test_the_documentation_builds_without_a_warning(tmp_path):
    command = (sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path.stem for path in tmp_path.glob("*.html")} >= {"index", "requests", "operations"}
