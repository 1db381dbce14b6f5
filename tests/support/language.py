"""Counts phrases that make docs, docstrings and comments hard to read.

``python -m tests.support.language [PATH …]`` prints each place and the counts per 1,000 words.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.support.paths import ROOT

# The highest allowed count per 1,000 words of each phrase.
LIMITS = {
    r"what (?:is|that|it|was|are)": 0.5,
    r"tell|tells|told|telling": 0.2,
    r"whose": 0.3,
    r"beside": 0.2,
}
# Files that quote these phrases on purpose.
SKIPPED = ("docs/style-before-after.md", "tests/support/language.py")


def files(paths: Iterable[str] = ()) -> list[Path]:
    """The tracked Markdown, Python and shell files under these paths, by default of the project."""
    patterns = ("*.md", "*.py", "*.sh", "Makefile", "Dockerfile")
    listed = subprocess.run(
        ["git", "ls-files", *paths], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    return [
        ROOT / name
        for name in listed
        if any(Path(name).match(pattern) for pattern in patterns) and name not in SKIPPED
    ]


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Each paragraph, docstring or comment of a file, with the number of its first line."""
    if path.suffix == ".md":
        yield from _markdown(path.read_text())
    elif path.suffix == ".py":
        yield from _python(path.read_text())
    else:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if line.lstrip().startswith("# "):
                yield number, line.lstrip("# ")


def _markdown(text: str) -> Iterator[tuple[int, str]]:
    text = re.sub(r"```.*?```", lambda found: "\n" * found[0].count("\n"), text, flags=re.DOTALL)
    line = 1
    for paragraph in text.split("\n\n"):
        if paragraph.strip() and not paragraph.startswith("    "):
            yield line, paragraph
        line += paragraph.count("\n") + 2


def _python(source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            value = getattr(statement, "value", None)
            text = getattr(value, "value", None)
            if isinstance(statement, ast.Expr) and isinstance(text, str):
                yield statement.lineno, text
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ")


def words(text: str) -> int:
    return len(re.findall(r"[A-Za-z][\w'-]*", text))


def rates(paths: Iterable[Path]) -> dict[str, float]:
    """The count per 1,000 words of each phrase in ``LIMITS``."""
    texts = [text for path in paths for _, text in prose(path)]
    total = sum(map(words, texts))
    return {
        phrase: 1000 * sum(len(places(phrase, text)) for text in texts) / total for phrase in LIMITS
    }


def places(phrase: str, text: str) -> list[str]:
    return re.findall(rf"\b(?:{phrase})\b", text, flags=re.IGNORECASE)


def main(arguments: list[str]) -> None:
    paths = files(arguments)
    for path in paths:
        for line, text in prose(path):
            for phrase in LIMITS:
                for found in places(phrase, text):
                    print(f"{path.relative_to(ROOT)}:{line}: {found}")
    for phrase, rate in rates(paths).items():
        print(f"{rate:5.2f} of at most {LIMITS[phrase]} per 1,000 words: {phrase}")


if __name__ == "__main__":
    main(sys.argv[1:])
