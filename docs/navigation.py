"""Adds docs/decisions to the navigation, so that a new decision needs no line in mkdocs.yml."""

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Append a section with the index and, by area, each page; a hook that mkdocs calls."""
    docs = Path(config.docs_dir)
    decisions = docs / "decisions"
    areas = sorted(path for path in decisions.iterdir() if path.is_dir())
    pages: list[Any] = [(decisions / "index.md").relative_to(docs).as_posix()]
    for area in areas:
        title = area.name.replace("_", " ").replace("-", " ").capitalize()
        pages.append({title: [page.relative_to(docs).as_posix() for page in _pages(area)]})
    config.nav.append({"Decisions": pages})
    return config


def _pages(area: Path) -> list[Path]:
    """The pages of an area, its index first."""
    return sorted(area.glob("*.md"), key=lambda page: (page.name != "index.md", page.name))
